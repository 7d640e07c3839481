"""StyleGAN2 pickles of the TensorFlow era (NVlabs/stylegan2, and StyleGAN2-ADA for TensorFlow).

Facts: `dnnlib.tflib.network.Network.__getstate__` and the layer names of `training.networks_stylegan2`.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ..generators.stylegan2_config import StyleGAN2Config
from .canonical import CanonicalGenerator, file_hint, stylegan2_generator
from .container import OpenedFile
from .errors import CheckpointError, UnsupportedCheckpointError
from .safe_pickle import Record
from .tensors import as_tensor, is_tensor

NETWORK = "dnnlib.tflib.network.Network"
_LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}


def is_network(value: Any) -> bool:
    """Whether `value` is a network of `dnnlib.tflib`."""
    return isinstance(value, Record) and value.symbol.name == NETWORK and isinstance(value.state, dict)


def read_tensorflow(opened: OpenedFile) -> CanonicalGenerator:
    """The smoothed generator Gs of a (G, D, Gs) pickle.

    Raises:
        UnsupportedCheckpointError: a StyleGAN or ProGAN of before StyleGAN2.
        CheckpointError: the file is damaged.
    """
    root = opened.root
    network = root[-1] if isinstance(root, (tuple, list)) and root else root
    if not is_network(network):
        raise CheckpointError("The file should hold the networks (G, D, Gs), but its last entry is no network.")
    settings = network.state.get("static_kwargs")
    components = network.state.get("components")
    if not isinstance(settings, dict) or not isinstance(components, dict):
        raise CheckpointError("The network of the file lacks its settings or its parts: it is damaged.")
    variables = _variables(network, opened)
    for name in ("mapping", "synthesis"):
        if not is_network(components.get(name)):
            raise UnsupportedCheckpointError(
                "this TensorFlow network has no mapping and synthesis: it is no StyleGAN2."
            )
        variables |= {f"{name}/{key}": value for key, value in _variables(components[name], opened).items()}
    if "synthesis/4x4/Conv/mod_weight" not in variables:
        raise UnsupportedCheckpointError(
            "this TensorFlow network modulates no weights: it is a StyleGAN of 2018/19 or a ProGAN, which is not "
            "supported. Only StyleGAN2 is."
        )
    state = {name: tensor for key, value in variables.items() for name, tensor in _canonical(key, value)}
    return stylegan2_generator(
        state, _config_of(settings, state), source_format="TensorFlow pickle", hints=(file_hint(opened.path),)
    )


def _variables(network: Record, opened: OpenedFile) -> dict[str, Tensor]:
    listed = network.state.get("variables")
    found: dict[str, Tensor] = {}
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, (tuple, list)) or len(entry) != 2 or not isinstance(entry[0], str):
            raise CheckpointError("The network of the file lists its variables in a malformed way: it is damaged.")
        name, value = entry
        if is_tensor(value):
            found[name] = as_tensor(value, opened.budget)
        elif isinstance(value, (int, float)):
            found[name] = torch.tensor(float(value))
    return found


def _canonical(key: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """Canonical name and tensor of one variable; none for variables that only training needs."""
    if key == "dlatent_avg":
        return [("mapping.w_avg", value)]
    if match := re.fullmatch(r"mapping/Dense(\d{1,3})/(weight|bias)", key):
        return [(f"mapping.fc{match[1]}.{match[2]}", _transposed(value) if match[2] == "weight" else value)]
    if match := re.fullmatch(r"mapping/LabelEmbed/(weight|bias)", key):
        return [(f"mapping.embed.{match[1]}", _transposed(value) if match[1] == "weight" else value)]
    if match := re.fullmatch(r"synthesis/noise(\d{1,2})", key):
        step = int(match[1]) + 1
        return [(f"synthesis.b{4 << step // 2}.conv{step % 2}.noise_const", value.reshape(value.shape[-2:]))]
    if key == "synthesis/4x4/Const/const":
        return [("synthesis.b4.const", value.reshape(value.shape[1:]))]
    if match := re.fullmatch(r"synthesis/(\d{1,4})x\1/(Conv|Conv0_up|Conv1|ToRGB|Skip)/(\w{1,20})", key):
        name = f"synthesis.b{match[1]}.{_LAYERS[match[2]]}"
        return _layer_variable(name, match[2], match[3], value)
    return []


def _layer_variable(name: str, layer: str, variable: str, value: Tensor) -> list[tuple[str, Tensor]]:
    if variable == "weight":
        _check_rank(name, value, 4)
        if layer in ("Conv0_up", "Skip"):
            value = value.flip(0, 1)  # TensorFlow convolves where NVIDIA's PyTorch layers transpose
        return [(f"{name}.weight", value.permute(3, 2, 0, 1))]
    if variable == "mod_weight":
        return [(f"{name}.affine.weight", _transposed(value))]
    if variable == "mod_bias":
        return [(f"{name}.affine.bias", value + 1)]
    if variable in ("bias", "noise_strength"):
        return [(f"{name}.{variable}", value)]
    return []


def _transposed(value: Tensor) -> Tensor:
    _check_rank("A dense layer", value, 2)
    return value.t()


def _check_rank(name: str, value: Tensor, rank: int) -> None:
    if value.ndim != rank:
        raise CheckpointError(
            f"{name} should have {rank} axes, but has shape {tuple(value.shape)}: the file is damaged."
        )


def _config_of(settings: dict[Any, Any], state: dict[str, Tensor]) -> StyleGAN2Config:
    def setting(name: str, kind: type | tuple[type, ...], default: Any) -> Any:
        value = settings.get(name, default)
        return value if isinstance(value, kind) and not isinstance(value, bool) else default

    if setting("nonlinearity", str, "lrelu") != "lrelu" or setting("mapping_nonlinearity", str, "lrelu") != "lrelu":
        raise UnsupportedCheckpointError("this StyleGAN2 uses another activation than leaky ReLU and is not supported.")
    first = state.get("mapping.fc0.weight")
    taps = settings.get("resample_kernel")
    clamp = setting("conv_clamp", (int, float), None)
    c_dim = setting("label_size", int, 0)
    if first is None or first.ndim != 2:
        raise CheckpointError("The file lacks the mapping network: it is damaged.")
    try:
        return StyleGAN2Config(
            z_dim=setting("latent_size", int, first.shape[1]),
            w_dim=first.shape[0],
            c_dim=c_dim,
            resolution=setting("resolution", int, 1024),
            img_channels=setting("num_channels", int, 3),
            mapping_layers=sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state),
            architecture=setting("architecture", str, "skip"),
            conv_clamp=None if clamp is None else float(clamp),
            num_fp16_res=min(16, max(0, setting("num_fp16_res", int, 0))),
            fir_taps=tuple(float(tap) for tap in taps) if isinstance(taps, (list, tuple)) else (1.0, 3.0, 3.0, 1.0),
            mapping_lr=float(setting("mapping_lrmul", float, 0.01)),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(str(error)) from error
