"""The perceptual distance that inverting and editing by picture optimise."""

from __future__ import annotations

import torch

from ..dynode_core.inversion import PerceptualDistance, load_perceptual
from ..dynode_core.model_files import find_perceptual
from . import model_folders


def perceptual_on(device: torch.device) -> PerceptualDistance:
    """ST-LPIPS on `device`; small enough to be read anew each time.

    Raises:
        FileNotFoundError: its weights are not installed; says how to get them.
    """
    return load_perceptual(find_perceptual(model_folders.folders(model_folders.PERCEPTUAL)), device)
