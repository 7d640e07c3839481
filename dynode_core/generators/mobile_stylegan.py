"""MobileStyleGAN (Belousov 2021, arXiv 2104.04767): a small generator distilled from StyleGAN2.

Facts from the public paper and checkpoints; the forward pass is restructured for speed (ours):
- every constant factor (1/sqrt(fan_in) of a modulation, the 1/2 of the Haar synthesis) is folded into the affine
  layers when the weights are loaded, demodulation is frozen into the pointwise weights;
- the inverse Haar transform is four additions and a pixel shuffle;
- biases sit in the convolutions; noise and activation work in place;
- on a CPU the last layers are computed in strips of rows: no block of memory is so big that the C library takes it
  from the kernel anew each time (one page fault per 4 KiB), and a strip stays in the cache. In a worker thread, where
  ComfyUI runs nodes, on 2 cores: forward 1.05 -> 0.53 s, forward + backward 2.4 -> 1.05 s; equal to 4e-6.

Row map of W+ (L = 3 * layers + 2): row 0 conv1, rows 3l+1 (up and conv1), 3l+2 (conv2) of layer l; the last
layer's row 3l+3 drives to_img. Rows 3l+3 of the other layers and the last row are unused at full resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_shape
from .compiled import OptionalCompile

State = Mapping[str, Tensor]

_STRIP_VALUES = 2**15
"""Values per channel and strip: 64 rows of 512."""


class Affine(nn.Module):
    """Style of one convolution: `(N, D)` rows to `(N, C, 1, 1)` factors, all constant scales folded in."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, w: Tensor) -> Tensor:
        return F.linear(w, self.weight, self.bias)[:, :, None, None]


def inverse_haar(bands: Tensor, num_channels: int) -> Tensor:
    """Inverse 2-D Haar transform without its factor 1/2.

    Args:
        bands: `(N, 4C, H, W)`: C low-pass channels, then 3 detail bands (LH, HL, HH) per channel.
    Returns:
        `(N, C, 2H, 2W)`.
    """
    batch, _, height, width = bands.shape
    low = bands[:, :num_channels]
    lh, hl, hh = bands[:, num_channels:].view(batch, num_channels, 3, height, width).unbind(2)
    top, bottom, left, right = low + lh, low - lh, hl + hh, hl - hh
    corners = torch.stack((top + left, top - left, bottom + right, bottom - right), dim=2)
    return F.pixel_shuffle(corners.view(batch, 4 * num_channels, height, width), 2)


class StyledConvolution(nn.Module):
    """Modulation, depthwise 3x3, pointwise 1x1, noise, leaky ReLU 0.2."""

    noise: Tensor

    def __init__(self, state: State, prefix: str) -> None:
        super().__init__()
        self.affine = Affine(state[f"{prefix}.affine.weight"], state[f"{prefix}.affine.bias"])
        self.depthwise = nn.Parameter(state[f"{prefix}.depthwise"], requires_grad=False)
        self.pointwise = nn.Parameter(state[f"{prefix}.pointwise"], requires_grad=False)
        self.bias = nn.Parameter(state[f"{prefix}.bias"], requires_grad=False)
        self.register_buffer("noise", state[f"{prefix}.noise"])

    def forward(self, x: Tensor, w: Tensor, first_row: int = 0) -> Tensor:
        """`(N, C, H, W)` to `(N, C', H', W)`: of rows from `first_row` on, those whose neighbours are known."""
        last_row, height = first_row + x.shape[2], self.noise.shape[2]
        above, below = int(first_row > 0), int(last_row < height)
        x = F.conv2d(x * self.affine(w), self.depthwise, padding=1, groups=x.shape[1])
        x = F.conv2d(x[:, :, above : x.shape[2] - below], self.pointwise, self.bias)
        return F.leaky_relu_(x.add_(self.noise[:, :, first_row + above : last_row - below]), 0.2)


class Layer(nn.Module):
    """Doubles the resolution: inverse Haar, then two styled convolutions."""

    def __init__(self, state: State, prefix: str) -> None:
        super().__init__()
        self.up = Affine(state[f"{prefix}.up.affine.weight"], state[f"{prefix}.up.affine.bias"])
        self.conv1 = StyledConvolution(state, f"{prefix}.conv1")
        self.conv2 = StyledConvolution(state, f"{prefix}.conv2")

    def forward(self, x: Tensor, w_up: Tensor, w_next: Tensor) -> Tensor:
        return torch.cat(list(self.strips(x, w_up, w_next)), dim=2)

    def strips(self, x: Tensor, w_up: Tensor, w_next: Tensor) -> Iterator[Tensor]:
        """`(N, C, H, W)` to consecutive strips `(N, C', h, 2W)`, whose heights sum to 2H."""
        height = 2 * x.shape[2]
        rows = max(2, _STRIP_VALUES // (2 * x.shape[3]) // 2 * 2) if x.device.type == "cpu" else height
        for start in range(0, height, rows):
            yield self._rows(x, w_up, w_next, start, min(start + rows, height))

    def _rows(self, x: Tensor, w_up: Tensor, w_next: Tensor, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` (even) of the output; each convolution needs one row more on both sides."""
        first, last = max(0, start // 2 - 1), min(x.shape[2], stop // 2 + 1)
        y = inverse_haar(x[:, :, first:last] * self.up(w_up), x.shape[1] // 4)
        y = self.conv1(y, w_up, 2 * first)
        above = 2 * first + int(first > 0)
        y = self.conv2(y, w_next, above)
        return y[:, :, start - above - int(above > 0) :][:, :, : stop - start]


class MobileStyleGAN(nn.Module):
    """The generator (see `generators.protocol.Generator`), frozen.

    Args:
        state: canonical tensors, as `checkpoints` writes them into safetensors files.
        family: which codes fit.
        generator_id: hash of the weights.
    Raises:
        ValueError: tensors are missing or do not fit together.
    """

    z_dim: int
    w_avg: Tensor
    const: Tensor
    conv1_noise: Tensor

    def __init__(self, state: State, *, family: str, generator_id: str) -> None:
        super().__init__()
        self.family, self.generator_id = family, generator_id
        self._compiled: OptionalCompile | None = None
        try:
            self._build(state)
        except KeyError as error:
            raise ValueError(f"These weights lack {error.args[0]!r}: not a complete MobileStyleGAN.") from error
        self.eval().requires_grad_(False)

    def _build(self, state: State) -> None:
        num_layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
        num_mapping = len({name.split(".")[1] for name in state if name.startswith("mapping.")})
        self.num_ws = 3 * num_layers + 2
        self.register_buffer("w_avg", state["w_avg"])
        self.w_dim = len(state["w_avg"])
        self.resolution = 2 * int(state[f"layers.{num_layers - 1}.conv2.noise"].shape[-1])
        self.register_buffer("const", state["const"])
        self.conv1_affine = Affine(state["conv1.affine.weight"], state["conv1.affine.bias"])
        self.conv1_weight = nn.Parameter(state["conv1.weight"], requires_grad=False)
        self.conv1_bias = nn.Parameter(state["conv1.bias"], requires_grad=False)
        self.register_buffer("conv1_noise", state["conv1.noise"])
        self.layers = nn.ModuleList(Layer(state, f"layers.{i}") for i in range(num_layers))
        self.to_img_affine = Affine(state["to_img.affine.weight"], state["to_img.affine.bias"])
        self.to_img_weight = nn.Parameter(state["to_img.weight"], requires_grad=False)
        self.to_img_bias = nn.Parameter(state["to_img.bias"], requires_grad=False)
        self.mapping = nn.ParameterList()
        for i in range(num_mapping):
            self.mapping.extend((state[f"mapping.{i}.weight"], state[f"mapping.{i}.bias"]))
        self.z_dim = int(self.mapping[0].shape[1])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.const.device

    def map(self, z: Tensor, *, truncation_psi: float = 1.0) -> Tensor:
        """See `Generator.map`."""
        check_shape("z", z, ("N", self.z_dim))
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight, bias in zip(self.mapping[::2], self.mapping[1::2], strict=True):
            x = F.leaky_relu(F.linear(x, weight, bias), 0.2) * 2**0.5
        w = self.w_avg + truncation_psi * (x - self.w_avg)
        return w[:, None].expand(-1, self.num_ws, -1).contiguous()

    def feature_maps(self, w_plus: Tensor, *, size: int) -> Tensor:
        """See `generators.proxy.HasFeatureMaps`: `(N, C, size, size)`, size a power of two from 8 to R/2."""
        num_layers = size.bit_length() - 3
        if size != 4 << num_layers or not 0 < num_layers <= len(self.layers):
            raise ValueError(f"size should be a power of two from 8 to {self.resolution // 2}, but is {size}.")
        return self._features(w_plus, num_layers)

    def from_feature_maps(self, maps: Tensor, w_plus: Tensor) -> Tensor:
        """See `generators.proxy.GoesOnFromFeatureMaps`."""
        last, x, strips = len(self.layers) - 1, maps, iter((maps,))
        for i in range(maps.shape[-1].bit_length() - 3, len(self.layers)):
            layer, rows = cast(Layer, self.layers[i]), (w_plus[:, 3 * i + 1], w_plus[:, 3 * i + 2])
            if i < last:
                x = layer(x, *rows)
            else:
                strips = layer.strips(x, *rows)
        factors = self.to_img_affine(w_plus[:, 3 * last + 3])
        return torch.cat(
            [inverse_haar(F.conv2d(strip * factors, self.to_img_weight, self.to_img_bias), 3) for strip in strips],
            dim=2,
        )

    def tunable_parameters(self, size: int) -> dict[str, nn.Parameter]:
        """See `generators.tuning.Tunable`: the pointwise convolutions; tuned depthwise ones draw stripes."""
        found = {}
        for i, layer in enumerate(self.layers):
            if 8 << i > size:
                break
            for name in ("conv1", "conv2"):
                convolution = getattr(layer, name)
                found[f"layers.{i}.{name}.pointwise"] = convolution.pointwise
                found[f"layers.{i}.{name}.bias"] = convolution.bias
        return found

    def _features(self, w_plus: Tensor, num_layers: int) -> Tensor:
        check_shape("w_plus", w_plus, ("N", self.num_ws, self.w_dim))
        x = self.const * self.conv1_affine(w_plus[:, 0])
        x = F.conv2d(x, self.conv1_weight, self.conv1_bias, padding=1)
        x = F.leaky_relu_(x.add_(self.conv1_noise), 0.2)
        for i, layer in enumerate(self.layers[:num_layers]):
            x = layer(x, w_plus[:, 3 * i + 1], w_plus[:, 3 * i + 2])
        return x

    def synthesize(self, w_plus: Tensor, *, size: int | None = None) -> Tensor:
        """See `Generator.synthesize`."""
        if size is not None and (size < 1 or self.resolution % size):
            raise ValueError(f"size should divide the generator's resolution {self.resolution}, but is {size}.")
        check_shape("w_plus", w_plus, ("N", self.num_ws, self.w_dim))
        run = MobileStyleGAN._run if self._compiled is None else self._compiled
        image: Tensor = run(self, w_plus)
        return image if size is None or size == self.resolution else F.avg_pool2d(image, self.resolution // size)

    def compile_synthesis(self, **options: Any) -> None:
        """See `StyleGAN2.compile_synthesis`."""
        self._compiled = OptionalCompile(MobileStyleGAN._run, **options)

    def _run(self, w_plus: Tensor) -> Tensor:
        """`(N, L, D)` codes to images of full size."""
        return self.from_feature_maps(self._features(w_plus, len(self.layers) - 1), w_plus)
