"""The four encoder networks. Facts: the encoder modules of pixel2style2pixel, encoder4editing and restyle-encoder.

A kind is named as the `encoder_type` that those repositories save: GradualStyleEncoder (pSp), Encoder4Editing (e4e),
BackboneEncoder (ReStyle on pSp), ProgressiveBackboneEncoder (ReStyle on e4e).
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import TAPS, State, body, input_layer, load_strictly, missing

PYRAMID_KINDS = ("GradualStyleEncoder", "Encoder4Editing")
SINGLE_SCALE_KINDS = ("BackboneEncoder", "ProgressiveBackboneEncoder")
KINDS = PYRAMID_KINDS + SINGLE_SCALE_KINDS
INPUT_SIZE = 256
_FIRST_MIDDLE, _FIRST_FINE = 3, 7


class EqualLinear(nn.Module):
    """Linear layer whose weights are scaled by 1/sqrt(inputs) when used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight.shape[1] ** -0.5, self.bias)


class StyleBlock(nn.Module):
    """Feature maps down to one row of W+: strided convolutions until a single pixel is left, then a linear layer."""

    def __init__(self, state: State, prefix: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while f"{prefix}.convs.{len(layers)}.weight" in state:
            outputs, inputs = state[f"{prefix}.convs.{len(layers)}.weight"].shape[:2]
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        outputs, inputs = missing(state, f"{prefix}.linear.weight").shape
        self.linear = EqualLinear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x)
        return self.linear(x.reshape(len(x), -1))


class EncoderNetwork(nn.Module):
    """`(N, 3 or 6, 256, 256)` in [-1, 1] to `(N, L, D)` codes relative to the mean w (see `StyleEncoder`).

    Args:
        state: tensors under the original names, without "encoder.".
        kind: one of `KINDS`.
    Raises:
        ValueError: tensors are missing or misshapen, or the kind is unknown.
    """

    def __init__(self, state: State, kind: str) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"Encoders of type {kind[:60]!r} are not supported; supported are {', '.join(KINDS)}.")
        self.kind, self.is_progressive = kind, kind in ("Encoder4Editing", "ProgressiveBackboneEncoder")
        with torch.inference_mode(False), torch.no_grad():
            self.input_layer, self.body = input_layer(state), body(state)
            found = [re.match(r"styles\.(\d{1,2})\.", name) for name in state]
            self.num_rows = 1 + max((int(match[1]) for match in found if match), default=-1)
            if self.num_rows == 0:
                raise ValueError("These weights lack styles.0: not a complete encoder.")
            self.styles = nn.ModuleList(StyleBlock(state, f"styles.{i}") for i in range(self.num_rows))
            if kind in PYRAMID_KINDS:
                outputs, inputs = missing(state, "latlayer1.weight").shape[:2]
                self.latlayer1 = nn.Conv2d(inputs, outputs, 1)
                outputs, inputs = missing(state, "latlayer2.weight").shape[:2]
                self.latlayer2 = nn.Conv2d(inputs, outputs, 1)
            load_strictly(self, state)
        self.in_channels = self.input_layer[0].in_channels
        self.w_dim = missing(state, "styles.0.linear.bias").shape[0]
        self.eval().requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps at 1/4, 1/8 and 1/16 of the input's size."""
        x, taps = self.input_layer(x), []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in TAPS:
                taps.append(x)
        return taps

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != (self.in_channels, INPUT_SIZE, INPUT_SIZE):
            raise ValueError(
                f"The encoder takes images of shape (N, {self.in_channels}, {INPUT_SIZE}, {INPUT_SIZE}), but got "
                f"{tuple(x.shape)}."
            )
        fine, middle, coarse = self.features(x)
        if self.kind in PYRAMID_KINDS:
            middle = _upsample_add(coarse, self.latlayer1(middle))
            fine = _upsample_add(middle, self.latlayer2(fine))
            levels = [
                coarse if i < _FIRST_MIDDLE else middle if i < _FIRST_FINE else fine for i in range(self.num_rows)
            ]
        else:
            levels = [coarse] * self.num_rows
        rows = [style(level) for style, level in zip(self.styles, levels, strict=True)]
        if self.is_progressive:  # row 0 is a whole code, the others are offsets to it
            rows = [rows[0], *(rows[0] + offset for offset in rows[1:])]
        return torch.stack(rows, dim=1)


def _upsample_add(small: Tensor, large: Tensor) -> Tensor:
    return F.interpolate(small, size=large.shape[2:], mode="bilinear", align_corners=True) + large
