"""Encoder files of e4e, pSp and ReStyle, and ArcFace weights, read without running anything in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.canonical import dataset_of, file_hint
from ...checkpoints.container import OpenedFile, open_file
from ...checkpoints.errors import CheckpointError
from ...checkpoints.load import state_id
from ...checkpoints.rosinality import option_texts
from ...checkpoints.safe_pickle import Record
from ...checkpoints.tensors import as_tensor, is_tensor, load_tensors
from .encode import StyleEncoder
from .identity import IdentityNetwork
from .networks import EncoderNetwork


def load_encoder(path: Path | str, *, kind: str | None = None, device: torch.device | str = "cpu") -> StyleEncoder:
    """Load the encoder of an e4e, pSp or ReStyle file.

    Args:
        kind: the encoder type where the file does not say it (see `networks.KINDS`).
        device: where the weights go.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, wants to run code, or holds no encoder of a supported type.
    """
    opened = open_file(path)
    try:
        return _read(opened, kind).to(device)
    except CheckpointError as error:
        raise type(error)(f"{opened.path.name}: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{opened.path.name}: {error}") from error


def load_identity(path: Path | str, *, device: torch.device | str = "cpu") -> IdentityNetwork:
    """Load ArcFace weights (`model_ir_se50.pth`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, wants to run code, or holds something else.
    """
    return IdentityNetwork(load_tensors(path)).to(device)


def _read(opened: OpenedFile, kind: str | None) -> StyleEncoder:
    root = opened.root
    values = root.get("state_dict") if isinstance(root, dict) else None
    if not isinstance(values, dict):
        raise CheckpointError("Expected an encoder file of e4e, pSp or ReStyle (an entry state_dict), found none.")
    state = {
        name.removeprefix("encoder.").removeprefix("module."): as_tensor(value, opened.budget)
        for name, value in values.items()
        if isinstance(name, str) and name.startswith("encoder.") and is_tensor(value)
    }
    if not state:
        raise CheckpointError("The file has no tensors named encoder.*: it holds no encoder.")
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"The weights hold NaN or infinity, first in {name}: the file is damaged.")
    options = root.get("opts")
    options = options.state if isinstance(options, Record) else options
    options = options if isinstance(options, dict) else {}
    network = EncoderNetwork(state, kind or _kind_of(options, state))
    resolution = 2 ** (network.num_rows // 2 + 1)
    family = f"stylegan2-{dataset_of((*option_texts(root), file_hint(opened.path)))}-{resolution}x{network.num_rows}"
    return StyleEncoder(network, _mean(root, options, network, opened), family=family, encoder_id=state_id(state))


def _kind_of(options: dict[Any, Any], state: dict[str, Tensor]) -> str:
    saved = options.get("encoder_type")
    if isinstance(saved, str):
        return saved
    if "latlayer1.weight" in state:
        raise CheckpointError(
            "The file does not say its encoder_type, and e4e and pSp encoders look alike. Name it: "
            "'Encoder4Editing' or 'GradualStyleEncoder'."
        )
    return "BackboneEncoder"


def _mean(root: Any, options: dict[Any, Any], network: EncoderNetwork, opened: OpenedFile) -> Tensor | None:
    if options.get("start_from_latent_avg", True) is False:
        return None
    mean = root.get("latent_avg")
    if not is_tensor(mean):
        raise CheckpointError("The file has no latent_avg, the mean code that its encoder's output is relative to.")
    tensor = as_tensor(mean, opened.budget).float()
    rows, width = network.num_rows, network.w_dim
    if not re.fullmatch(rf"({width}|1x{width}|\d+x{width})", "x".join(map(str, tensor.shape))):
        raise CheckpointError(f"latent_avg should have shape ({rows}, {width}), but has shape {tuple(tensor.shape)}.")
    tensor = tensor.reshape(-1, width)
    return tensor[:rows].clone() if len(tensor) >= rows else tensor[:1].repeat(rows, 1)
