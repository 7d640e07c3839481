"""ST-LPIPS: the shift-tolerant perceptual distance (Ghildyal & Liu, ECCV 2022), AlexNet variant.

It is not standard LPIPS and is reported under its own name. Architecture facts from the public package
`stlpips-pytorch` 0.0.2, whose weight file is read; the implementation is ours. Its first convolution runs at
stride 1 and is followed by a blur of stride 2: both are linear, so the fast path runs them as one 13x13
convolution of stride 2 (a third of the work; it differs from the exact path only within 4 px of the border).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.tensors import load_tensors

_CONVOLUTIONS = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
_PADDINGS = (2, 2, 1, 1, 1)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_BLUR = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16


class PerceptualDistance(nn.Module):
    """ST-LPIPS between network images `(N, 3, S, S)` in [-1, 1], S >= 64; differentiable, frozen."""

    name = "ST-LPIPS (alex)"
    shift: Tensor
    scale: Tensor
    weight0: Tensor
    bias0: Tensor
    fused_weight0: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        try:
            convolutions = [(weights[f"net.{name}.weight"], weights[f"net.{name}.bias"]) for name in _CONVOLUTIONS]
            linear = [weights[f"lin{i}.model.1.weight"] for i in range(len(_CONVOLUTIONS))]
        except KeyError as error:
            raise ValueError(
                f"The perceptual weights lack {error.args[0]!r}: not the ST-LPIPS AlexNet file."
            ) from error
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        for i, ((weight, bias), line) in enumerate(zip(convolutions, linear, strict=True)):
            self.register_buffer(f"weight{i}", weight.float())
            self.register_buffer(f"bias{i}", bias.float())
            self.register_buffer(f"linear{i}", line.float())
        self.register_buffer("fused_weight0", _convolve_with_blur(weights["net.slice1.0.weight"].float()))
        self.eval().requires_grad_(False)

    def features(self, images: Tensor, *, exact: bool = True) -> list[Tensor]:
        """Unit-normalised feature maps of the five stages."""
        x = (images - self.shift) / self.scale
        if exact:
            x = _blur_down(F.conv2d(x, self.weight0, self.bias0, padding=2))
        else:
            x = F.conv2d(x, self.fused_weight0, self.bias0, stride=2, padding=4)
        maps = [F.relu(x)]
        for i in range(1, len(_CONVOLUTIONS)):
            x = maps[-1]
            if i <= 2:
                x = _blur_down(F.max_pool2d(x, 3, stride=1))
            maps.append(
                F.relu(F.conv2d(x, getattr(self, f"weight{i}"), getattr(self, f"bias{i}"), padding=_PADDINGS[i]))
            )
        return [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in maps]

    def between_features(
        self, first: Sequence[Tensor], second: Sequence[Tensor], weight: Tensor | None = None
    ) -> Tensor:
        """`(N,)` distances from two results of `features`; `weight` `(N, 1, H, W)` of mean 1 emphasises places."""
        total = torch.zeros(len(first[0]), device=first[0].device)
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            difference = F.conv2d((a - b).square(), getattr(self, f"linear{i}"))
            if weight is not None:
                difference = difference * F.adaptive_avg_pool2d(weight, (difference.shape[2], difference.shape[3]))
            total = total + difference.mean(dim=(1, 2, 3))
        return total

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """`(N,)` exact distances between two batches of images."""
        return self.between_features(self.features(first), self.features(second))


def load_perceptual(path: Path, device: torch.device | str = "cpu") -> PerceptualDistance:
    """Read the weights file safely.

    Raises:
        ValueError: damaged, or another network.
    """
    return PerceptualDistance(load_tensors(path)).to(device)


def _blur_down(x: Tensor) -> Tensor:
    """Blur with [1, 2, 1]/4 and take every second sample, after reflecting 2 pixels."""
    channels = x.shape[1]
    kernel = _BLUR.to(x).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=channels)


def _convolve_with_blur(weight: Tensor) -> Tensor:
    """`(O, I, k, k)` correlation kernel followed by the blur, as one `(O, I, k+2, k+2)` kernel."""
    out_channels, in_channels, size, _ = weight.shape
    flat = weight.reshape(out_channels * in_channels, 1, size, size)
    return F.conv2d(flat, _BLUR.view(1, 1, 3, 3).flip(2, 3), padding=2).view(
        out_channels, in_channels, size + 2, size + 2
    )
