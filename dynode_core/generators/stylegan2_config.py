"""The shape of a StyleGAN2: what besides the numbers a checkpoint must say, and how to read it off the numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from torch import Tensor

ARCHITECTURES = ("skip", "orig", "resnet")


@dataclass(frozen=True)
class StyleGAN2Config:
    """Everything about a StyleGAN2 that its tensors do not show, and the sizes that they do.

    Raises:
        ValueError: a size or name that no StyleGAN2 has.
    """

    z_dim: int
    w_dim: int
    resolution: int
    """Side of the image in pixels: a power of two, 8 to 2048."""
    mapping_layers: int
    c_dim: int = 0
    """Number of classes; 0 if unconditional."""
    img_channels: int = 3
    architecture: str = "skip"
    conv_clamp: float | None = None
    """Limit on activations (NVIDIA trains with 256 where layers run in half precision)."""
    num_fp16_res: int = 0
    """How many of the highest resolutions were trained in half precision; used on CUDA devices."""
    fir_taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    mapping_lr: float = 0.01
    """Learning-rate multiplier of the mapping network, a factor on its weights."""

    def __post_init__(self) -> None:
        is_power = self.resolution >= 8 and self.resolution & (self.resolution - 1) == 0
        if not is_power or self.resolution > 2048:
            raise ValueError(
                f"A StyleGAN2 has a power-of-two resolution from 8 to 2048, but this one has {self.resolution}."
            )
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture should be one of {', '.join(ARCHITECTURES)}, but is {self.architecture!r}.")
        if self.conv_clamp is not None and not self.conv_clamp > 0:
            raise ValueError(f"conv_clamp should be positive or None, but is {self.conv_clamp}.")
        if len(self.fir_taps) != 4 or not math.isfinite(sum(self.fir_taps)) or sum(self.fir_taps) == 0:
            raise ValueError(f"The resampling filter should have 4 taps with a sum, but has {self.fir_taps}.")
        for name in ("z_dim", "w_dim", "img_channels", "mapping_layers"):
            if not 1 <= getattr(self, name) <= 8192:
                raise ValueError(f"{name} of a StyleGAN2 should lie between 1 and 8192, but is {getattr(self, name)}.")

    @property
    def num_ws(self) -> int:
        """Rows of a W+ code."""
        return 2 * (self.resolution.bit_length() - 1) - 2

    @property
    def block_resolutions(self) -> list[int]:
        """4, 8, ... resolution."""
        return [4 << i for i in range(self.resolution.bit_length() - 2)]

    @property
    def fp16_resolution(self) -> int:
        """Blocks of this resolution and above run in half precision on CUDA devices (never the first block)."""
        return max(8, 2 * self.resolution >> self.num_fp16_res) if self.num_fp16_res > 0 else 2 * self.resolution

    def to_json(self) -> str:
        """As metadata of a safetensors file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> StyleGAN2Config:
        """The inverse of `to_json`.

        Raises:
            ValueError: the text is no such configuration.
        """
        try:
            found = json.loads(text)
            known = {field.name for field in fields(cls)}
            values = {name: value for name, value in found.items() if name in known}
            return cls(**{**values, "fir_taps": tuple(float(tap) for tap in values["fir_taps"])})
        except (TypeError, KeyError, AttributeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"The file's metadata hold no StyleGAN2 configuration ({error}).") from error


def expected_shapes(config: StyleGAN2Config, channels: Mapping[int, int]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the canonical state (NVIDIA's names); `channels` by resolution.

    Noise tensors (`noise_const`, `noise_strength`) may be absent where a network was trained without noise.
    """
    w_dim = config.w_dim
    shapes: dict[str, tuple[int, ...]] = {"mapping.w_avg": (w_dim,)}
    features = config.z_dim
    if config.c_dim:
        shapes["mapping.embed.weight"], shapes["mapping.embed.bias"] = (w_dim, config.c_dim), (w_dim,)
        features += w_dim
    for i in range(config.mapping_layers):
        shapes[f"mapping.fc{i}.weight"], shapes[f"mapping.fc{i}.bias"] = (w_dim, features), (w_dim,)
        features = w_dim
    shapes["synthesis.b4.const"] = (channels[4], 4, 4)
    for res in config.block_resolutions:
        prefix, out = f"synthesis.b{res}", channels[res]
        if res > 4:
            before = channels[res // 2]
            shapes |= _layer_shapes(f"{prefix}.conv0", before, out, res, w_dim)
            if config.architecture == "resnet":
                shapes[f"{prefix}.skip.weight"] = (out, before, 1, 1)
        shapes |= _layer_shapes(f"{prefix}.conv1", out, out, res, w_dim)
        if config.architecture == "skip" or res == config.resolution:
            shapes[f"{prefix}.torgb.weight"] = (config.img_channels, out, 1, 1)
            shapes[f"{prefix}.torgb.bias"] = (config.img_channels,)
            shapes[f"{prefix}.torgb.affine.weight"] = (out, w_dim)
            shapes[f"{prefix}.torgb.affine.bias"] = (out,)
    return shapes


def _layer_shapes(prefix: str, inputs: int, outputs: int, res: int, w_dim: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.weight": (outputs, inputs, 3, 3),
        f"{prefix}.bias": (outputs,),
        f"{prefix}.affine.weight": (inputs, w_dim),
        f"{prefix}.affine.bias": (inputs,),
        f"{prefix}.noise_const": (res, res),
        f"{prefix}.noise_strength": (),
    }


def channels_of(state: Mapping[str, Tensor], config: StyleGAN2Config) -> dict[int, int]:
    """Channels of each block, read off its `conv1` bias.

    Raises:
        ValueError: a block is missing.
    """
    channels = {}
    for res in config.block_resolutions:
        bias = state.get(f"synthesis.b{res}.conv1.bias")
        if bias is None or bias.ndim != 1:
            raise ValueError(
                f"These weights lack synthesis.b{res}.conv1.bias: not a complete StyleGAN2 of {config.resolution} px."
            )
        channels[res] = len(bias)
    return channels


def check_state(state: Mapping[str, Tensor], config: StyleGAN2Config) -> None:
    """Raise ValueError unless every tensor of a StyleGAN2 of this configuration is there, in its shape."""
    shapes = expected_shapes(config, channels_of(state, config))
    if not any(name.endswith("noise_const") for name in state):
        shapes = {name: shape for name, shape in shapes.items() if ".noise_" not in name}
    missing = [name for name in shapes if name not in state]
    if missing:
        raise ValueError(f"These weights lack {len(missing)} tensors of a StyleGAN2, the first {missing[0]}.")
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            raise ValueError(f"{name} should have shape {shape}, but has shape {tuple(state[name].shape)}.")
