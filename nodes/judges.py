"""The networks that judge reconstructions: the perceptual distance, and the face embedder."""

from __future__ import annotations

import logging

import torch

from ..dynode_core.inversion import IdentityNetwork, PerceptualDistance, load_perceptual
from ..dynode_core.inversion.lpips import find_lpips, load_lpips
from ..dynode_core.model_files import IDENTITY, find_identity, find_perceptual
from . import model_folders


def perceptual_on(device: torch.device) -> PerceptualDistance:
    """ST-LPIPS on `device`; small enough to be read anew each time.

    Raises:
        FileNotFoundError: its weights are not installed; says how to get them.
    """
    return load_perceptual(find_perceptual(model_folders.folders(model_folders.PERCEPTUAL)), device)


def best_perceptual_on(device: torch.device) -> PerceptualDistance:
    """LPIPS on `device` where its two weight files are on the machine, else ST-LPIPS; its `name` says which.

    Raises:
        FileNotFoundError: neither is.
    """
    files = find_lpips(model_folders.folders(model_folders.PERCEPTUAL))
    return perceptual_on(device) if files is None else load_lpips(files, device)


def identity_on(device: torch.device) -> IdentityNetwork | None:
    """The face embedder on `device`, or None with a line in the log where its file is not installed."""
    path = find_identity(model_folders.folders(model_folders.IDENTITY))
    if path is None:
        logging.getLogger(__name__).warning(
            "%s was not found: reconstructions will resemble the person less. Put %s into models/%s, or install it as "
            "the README says.",
            IDENTITY.purpose,
            IDENTITY.file_names[0],
            IDENTITY.folder_hint,
        )
        return None
    return IdentityNetwork(path, device)
