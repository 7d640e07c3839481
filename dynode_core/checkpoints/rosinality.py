"""StyleGAN2 in rosinality's layout: plain files, training files, and the decoder of e4e, pSp and ReStyle files.

Facts: the modules of rosinality/stylegan2-pytorch. No kernel is flipped in either direction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..generators.stylegan2_config import StyleGAN2Config
from .canonical import CanonicalGenerator, file_hint, stylegan2_generator
from .container import OpenedFile
from .errors import CheckpointError
from .nvidia import taps_of
from .safe_pickle import Record
from .tensors import as_tensor, is_tensor

_LAYER_NAMES = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
}


def state_of(opened: OpenedFile) -> tuple[dict[Any, Any], str] | None:
    """The dictionary that holds a rosinality generator and the prefix of its names; None if there is none."""
    root = opened.root
    if not isinstance(root, dict):
        return None
    for key in ("g_ema", "state_dict", "g", "generator", ""):
        state = root.get(key) if key else root
        if not isinstance(state, dict):
            continue
        for prefix in ("", "module.", "decoder.", "decoder.module.", "net.decoder.", "generator."):
            if f"{prefix}input.input" in state and f"{prefix}conv1.conv.weight" in state:
                return state, prefix
    return None


def read_rosinality(opened: OpenedFile) -> CanonicalGenerator:
    """The generator of a rosinality, e4e, pSp or ReStyle file; a missing mean w is estimated.

    Raises:
        CheckpointError: tensors are missing or misshapen.
    """
    found = state_of(opened)
    if found is None:
        raise CheckpointError("The file holds no StyleGAN2 in rosinality's layout (no entry input.input).")
    values, prefix = found
    source = {
        name.removeprefix(prefix): as_tensor(value, opened.budget)
        for name, value in values.items()
        if isinstance(name, str) and name.startswith(prefix) and is_tensor(value)
    }
    state = canonical_state(source)
    mean = opened.root.get("latent_avg")
    if is_tensor(mean):
        # Encoders keep one mean per row, all alike; single files keep one.
        mean = as_tensor(mean, opened.budget).float()
        state["mapping.w_avg"] = mean if mean.ndim == 1 else mean.reshape(-1, mean.shape[-1]).mean(dim=0)
    kind = "rosinality checkpoint" if not prefix else "encoder checkpoint (decoder)"
    hints = (file_hint(opened.path), *option_texts(opened.root))
    return stylegan2_generator(state, _config_of(source, state), source_format=kind, hints=hints)


def option_texts(root: Mapping[Any, Any]) -> tuple[str, ...]:
    """What the saved training options say about data sets and weights."""
    options = root.get("opts", root.get("args"))
    options = options.state if isinstance(options, Record) else options
    if not isinstance(options, dict):
        return ()
    named = (options.get(key) for key in ("dataset_type", "stylegan_weights", "path"))
    return tuple(text for text in named if isinstance(text, str))


def canonical_state(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """rosinality's names and shapes to NVIDIA's; unknown names are left out."""
    state: dict[str, Tensor] = {}
    for name, tensor in source.items():
        if match := re.fullmatch(r"style\.(\d{1,2})\.(weight|bias)", name):
            state[f"mapping.fc{int(match[1]) - 1}.{match[2]}"] = tensor
        elif name == "input.input":
            state["synthesis.b4.const"] = _first(tensor, 4)
        elif match := re.fullmatch(r"noises\.noise_(\d{1,2})", name):
            step = int(match[1]) + 1
            state[f"synthesis.b{4 << step // 2}.conv{step % 2}.noise_const"] = tensor.reshape(tensor.shape[-2:])
        elif match := re.fullmatch(r"(conv1|convs\.(\d{1,2})|to_rgb1|to_rgbs\.(\d{1,2}))\.(.{4,24})", name):
            part = _LAYER_NAMES.get(match[4])
            if part is not None:
                state[f"{_layer(match)}.{part}"] = _shaped(part, tensor)
    return state


def _layer(match: re.Match[str]) -> str:
    if match[1] == "conv1":
        return "synthesis.b4.conv1"
    if match[1] == "to_rgb1":
        return "synthesis.b4.torgb"
    if match[2] is not None:
        return f"synthesis.b{8 << int(match[2]) // 2}.conv{int(match[2]) % 2}"
    return f"synthesis.b{8 << int(match[3])}.torgb"


def _shaped(part: str, tensor: Tensor) -> Tensor:
    if part == "weight":
        return _first(tensor, 5)
    if part == "noise_strength":
        return tensor.reshape(()) if tensor.numel() == 1 else tensor
    return tensor.flatten() if part == "bias" else tensor


def _first(tensor: Tensor, rank: int) -> Tensor:
    if tensor.ndim != rank or len(tensor) != 1:
        raise CheckpointError(f"A tensor of the file should have shape (1, ...), but has shape {tuple(tensor.shape)}.")
    return tensor[0]


def _config_of(source: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> StyleGAN2Config:
    first = state.get("mapping.fc0.weight")
    if first is None or first.ndim != 2:
        raise CheckpointError("The file lacks the mapping network (style.1.weight): it is no complete generator.")
    resolutions = [int(match[1]) for name in state if (match := re.fullmatch(r"synthesis\.b(\d+)\.conv1\.bias", name))]
    kernel = source.get("convs.0.conv.blur.kernel")
    rgb = state.get("synthesis.b4.torgb.bias")
    try:
        return StyleGAN2Config(
            z_dim=first.shape[1],
            w_dim=first.shape[0],
            resolution=max(resolutions, default=0),
            img_channels=3 if rgb is None else len(rgb),
            mapping_layers=sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state),
            fir_taps=(1.0, 3.0, 3.0, 1.0) if kernel is None else taps_of(kernel),
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from error
