"""Which reader reads a generator file, decided by what is in the file, never by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..generators.stylegan2_config import StyleGAN2Config
from . import mobile_stylegan_ckpt, nvidia, rosinality, tensorflow
from .canonical import CanonicalGenerator, file_hint, stylegan2_generator
from .container import OpenedFile, open_file
from .errors import CheckpointError, UnsupportedCheckpointError
from .tensors import load_safetensors, opened_tensors

_EXPECTED = (
    "Expected a StyleGAN2 (NVIDIA .pkl of PyTorch or TensorFlow, rosinality .pt, e4e, pSp or ReStyle .pt with decoder, "
    "PTI or STIT .pt), a MobileStyleGAN (.ckpt or OpenVINO .xml) or a .safetensors written by this pack."
)


def read_generator_file(path: str | Path) -> CanonicalGenerator:
    """Read the generator in a checkpoint of any supported format, without running anything in it.

    Raises:
        FileNotFoundError: there is no such file.
        RefusedCheckpointError: the file wants to run code.
        UnsupportedCheckpointError: it holds an architecture that is not supported; the message names it.
        CheckpointError: it is damaged, or holds no generator.
    """
    opened = open_file(path)
    try:
        return _read(opened)
    except CheckpointError as error:
        message = str(error)
        if message.startswith(opened.path.name):
            raise
        raise type(error)(f"{opened.path.name}: {message}") from error


def _read(opened: OpenedFile) -> CanonicalGenerator:
    root = opened.root
    if opened.kind == "npy":
        raise CheckpointError(f"this is one array (a direction or a latent code), not a generator. {_EXPECTED}")
    if opened.kind == "safetensors":
        return _read_named(load_safetensors(opened.path)[0], opened)
    if nvidia.is_persistent(root) or _has_module(root):
        return nvidia.read_nvidia(opened)
    if tensorflow.is_network(root) or (isinstance(root, (tuple, list)) and root and tensorflow.is_network(root[-1])):
        return tensorflow.read_tensorflow(opened)
    if mobile_stylegan_ckpt.state_of(opened) is not None:
        return mobile_stylegan_ckpt.read_mobile_checkpoint(opened)
    if rosinality.state_of(opened) is not None:
        return rosinality.read_rosinality(opened)
    return _read_named(_plain_state(opened), opened)


def _has_module(root: Any) -> bool:
    return isinstance(root, dict) and any(nvidia.is_persistent(root.get(key)) for key in ("G_ema", "generator", "G"))


def _plain_state(opened: OpenedFile) -> dict[str, Tensor]:
    """A state dict under NVIDIA's names, saved as it is; everything else is explained and refused."""
    root = opened.root
    if not isinstance(root, dict):
        raise CheckpointError(f"this holds a {type(root).__name__}, not a generator. {_EXPECTED}")
    for key in ("G_ema", "g_ema", "state_dict", ""):
        state = root.get(key) if key else root
        if isinstance(state, dict) and any(isinstance(name, str) and "synthesis.b4." in name for name in state):
            return opened_tensors(opened, state)
    raise _explain(root)


def _explain(root: Mapping[Any, Any]) -> CheckpointError:
    names = [key for key in root if isinstance(key, str)]
    inner = [key for value in root.values() if isinstance(value, dict) for key in value if isinstance(key, str)]
    every = names + inner
    if "GAN" in root and any(name.startswith(("S.net", "G.blocks", "GE.", "SE.")) for name in inner):
        return UnsupportedCheckpointError(
            "this is a lucidrains stylegan2-pytorch file: not a StyleGAN2 (NVIDIA layout) checkpoint but an "
            "architecture of its own (other up-sampling, other noise), which is not supported."
        )
    if any("synthesis.input.freqs" in name or "synthesis.L0_" in name for name in every):
        return UnsupportedCheckpointError("this is a StyleGAN3 state dict, which is not supported; use a StyleGAN2.")
    if any(name.startswith("encoder.") for name in every):
        return CheckpointError("this holds an encoder without its decoder. Use it as an encoder, and load a generator.")
    if any("diffusion_model." in name or name.startswith("first_stage_model.") for name in every):
        return UnsupportedCheckpointError("this is a diffusion checkpoint, not a StyleGAN2.")
    return CheckpointError(f"this holds no generator (entries: {', '.join(names[:6]) or 'none'}). {_EXPECTED}")


def _read_named(state: dict[str, Tensor], opened: OpenedFile) -> CanonicalGenerator:
    """A state dict under NVIDIA's names without settings: sizes are read off, the rest are NVIDIA's class defaults."""
    state = {name.removeprefix("module.").removeprefix("G_ema."): tensor for name, tensor in state.items()}
    if "synthesis.b4.const" not in state:
        raise _explain(state)
    first, embed = state.get("mapping.fc0.weight"), state.get("mapping.embed.weight")
    if first is None or first.ndim != 2 or (embed is not None and embed.ndim != 2):
        raise CheckpointError("the mapping network (mapping.fc0.weight) is missing: this is no complete generator.")
    found = [re.fullmatch(r"synthesis\.b([1-9]\d{0,3})\.conv1\.bias", name) for name in state]
    resolution = max((int(match[1]) for match in found if match), default=0)
    architecture = "skip" if "synthesis.b4.torgb.weight" in state else "orig"
    architecture = "resnet" if "synthesis.b8.skip.weight" in state else architecture
    rgb = state.get(f"synthesis.b{resolution}.torgb.bias")
    fir = state.get("synthesis.b8.conv0.resample_filter")
    try:
        config = StyleGAN2Config(
            z_dim=first.shape[1] - (0 if embed is None else len(embed)),
            w_dim=len(first),
            c_dim=0 if embed is None else embed.shape[1],
            resolution=resolution,
            img_channels=3 if rgb is None else len(rgb),
            mapping_layers=sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state),
            architecture=architecture,
            fir_taps=(1.0, 3.0, 3.0, 1.0) if fir is None else nvidia.taps_of(fir),
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    hints = (file_hint(opened.path),)
    return stylegan2_generator(state, config, source_format="state dict (NVIDIA names)", hints=hints)
