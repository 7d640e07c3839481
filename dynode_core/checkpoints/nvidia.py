"""NVIDIA's StyleGAN2 pickles (stylegan2-ada-pytorch, stylegan3 repository, PTI, STIT).

Their modules are pickled with their source code, which the original loader executes. Here a module is the data
`{class_name, state}`, and its tensors and settings are read out of `state`. Facts: `torch_utils.persistence`,
`training.networks` and `training.networks_stylegan2` of those repositories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..generators.stylegan2_config import StyleGAN2Config
from .canonical import CanonicalGenerator, file_hint, stylegan2_generator
from .container import OpenedFile
from .errors import CheckpointError, UnsupportedCheckpointError
from .safe_pickle import Record
from .tensors import as_tensor, is_tensor

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_MAX_DEPTH = 12


@dataclass
class PickledModule:
    """A network module out of a pickle: class name, settings, tensors and parts."""

    class_name: str
    settings: dict[str, Any]
    tensors: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, PickledModule] = field(default_factory=dict)

    def flat(self, prefix: str = "") -> dict[str, Any]:
        """Every tensor by its dotted name."""
        found = {prefix + name: tensor for name, tensor in self.tensors.items()}
        for name, part in self.parts.items():
            found |= part.flat(f"{prefix}{name}.")
        return found

    def setting(self, name: str, kind: type, default: Any) -> Any:
        """A plain setting of the module, if it is of that kind."""
        value = self.settings.get(name, default)
        if isinstance(value, bool) and kind is not bool:
            return default
        return value if isinstance(value, kind) else default


def is_persistent(value: Any) -> bool:
    """Whether `value` is a module pickled by NVIDIA's persistence."""
    return isinstance(value, Record) and value.symbol.name == PERSISTENT


def read_module(value: Any, opened: OpenedFile, depth: int = 0) -> PickledModule:
    """The module in a persistence record.

    Raises:
        CheckpointError: it is malformed.
    """
    opened.budget.spend_operations(1)
    meta = value.args[0] if is_persistent(value) and value.args else None
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict) or depth > _MAX_DEPTH:
        raise CheckpointError("The file holds a network module without its state: it is damaged.")
    state = meta["state"]
    module = PickledModule(str(meta.get("class_name", "")), state)
    for group in ("_parameters", "_buffers"):
        entries = state.get(group)
        for name, tensor in entries.items() if isinstance(entries, dict) else ():
            if is_tensor(tensor):
                module.tensors[str(name)] = tensor
    parts = state.get("_modules")
    for name, part in parts.items() if isinstance(parts, dict) else ():
        if is_persistent(part):
            module.parts[str(name)] = read_module(part, opened, depth + 1)
    return module


def read_nvidia(opened: OpenedFile) -> CanonicalGenerator:
    """The smoothed generator of an NVIDIA, PTI or STIT file.

    Raises:
        UnsupportedCheckpointError: the file holds another architecture (StyleGAN3, a 3-D generator).
        CheckpointError: there is no generator in it.
    """
    root = opened.root
    hints = [file_hint(opened.path)]
    value = root
    if isinstance(root, dict):
        value = next((root[key] for key in ("G_ema", "generator", "G") if is_persistent(root.get(key))), None)
        training = root.get("training_set_kwargs")
        hints += [entry for entry in training.values() if isinstance(entry, str)] if isinstance(training, dict) else []
    if value is None:
        raise CheckpointError("The file holds no generator: expected an entry G_ema (NVIDIA) or generator (STIT).")
    module = read_module(value, opened)
    _check_architecture(module)
    config = _config_of(module, opened)
    tensors = {name: as_tensor(tensor, opened.budget) for name, tensor in module.flat().items()}
    return stylegan2_generator(tensors, config, source_format="NVIDIA pickle", hints=tuple(hints))


def _check_architecture(module: PickledModule) -> None:
    synthesis, mapping = module.parts.get("synthesis"), module.parts.get("mapping")
    if synthesis is not None and "input" in synthesis.parts and "b4" not in synthesis.parts:
        raise UnsupportedCheckpointError(
            "this is a StyleGAN3 generator, which has another architecture than StyleGAN2 and is not supported. "
            "Use a StyleGAN2 checkpoint of the same data set (the stylegan3 repository publishes both)."
        )
    if synthesis is None or mapping is None or "b4" not in synthesis.parts:
        raise UnsupportedCheckpointError(
            f"this holds a network {module.class_name[:60]!r}, which is no StyleGAN2 generator (mapping and synthesis "
            "with blocks b4, b8, ...), and is not supported."
        )


def _config_of(module: PickledModule, opened: OpenedFile) -> StyleGAN2Config:
    """The settings that the modules recorded of themselves: they include the defaults of the code that made them."""
    synthesis, mapping = module.parts["synthesis"], module.parts["mapping"]
    blocks = {name: part for name, part in synthesis.parts.items() if re.fullmatch(r"b[1-9][0-9]{0,3}", name)}
    resolution = max(int(name[1:]) for name in blocks)
    last = blocks[f"b{resolution}"]
    layer = last.parts.get("conv1", last)
    if layer.setting("activation", str, "lrelu") != "lrelu":
        raise UnsupportedCheckpointError("this StyleGAN2 uses another activation than leaky ReLU and is not supported.")
    clamp = layer.setting("conv_clamp", (int, float), None)  # type: ignore[arg-type]
    try:
        return StyleGAN2Config(
            z_dim=module.setting("z_dim", int, 0) or mapping.setting("z_dim", int, 0),
            c_dim=module.setting("c_dim", int, 0),
            w_dim=module.setting("w_dim", int, 0) or synthesis.setting("w_dim", int, 0),
            resolution=resolution,
            img_channels=module.setting("img_channels", int, 3),
            mapping_layers=sum(name[:2] == "fc" for name in mapping.parts),
            architecture=last.setting("architecture", str, "skip"),
            conv_clamp=None if clamp is None else float(clamp),
            num_fp16_res=sum(block.setting("use_fp16", bool, False) for block in blocks.values()),
            fir_taps=_taps(layer, opened),
            mapping_lr=float(mapping.parts["fc0"].setting("bias_gain", float, 0.01))
            if "fc0" in mapping.parts
            else 0.01,
        )
    except (ValueError, OverflowError) as error:
        raise CheckpointError(str(error)) from error


def _taps(layer: PickledModule, opened: OpenedFile) -> tuple[float, ...]:
    if "resample_filter" not in layer.tensors:
        return (1.0, 3.0, 3.0, 1.0)
    return taps_of(as_tensor(layer.tensors["resample_filter"], opened.budget))


def taps_of(square: Tensor) -> tuple[float, ...]:
    """The 4 taps whose outer product is `square`, scaled to sum 8.

    Raises:
        CheckpointError: `square` is no such product.
    """
    if tuple(square.shape) != (4, 4):
        raise CheckpointError(f"The resampling filter should have shape (4, 4), but has shape {tuple(square.shape)}.")
    line = square.double().sum(dim=0)
    line = line / line.sum() * 8
    taps = tuple(round(float(tap), 5) for tap in line)
    if not all(abs(tap) < 1e6 for tap in taps):
        raise CheckpointError("The resampling filter of the file is damaged.")
    return taps
