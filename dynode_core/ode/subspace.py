"""The subspace in which the trajectory lives: the principal axes of the observed codes.

z = mean + scale * U y + (what lies outside the hull of the codes, carried along unchanged).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GRAM_LIMIT = 256
"""Codes up to which the exact Gram matrix is used; beyond it a seeded randomised range finder is faster."""
_OVERSAMPLING, _POWER_ITERATIONS = 16, 2
_CHUNK = 256


@dataclass(frozen=True)
class Subspace:
    """W+ codes <-> states y. L rows of D channels, r axes."""

    mean: Tensor
    """`(L * D,)` float32: the mean code."""
    axes: Tensor
    """`(L * D, r)` float32, orthonormal columns, strongest first."""
    scale: float
    """One number for all axes, so that distances keep their meaning: y has rms 1 over all axes and observations."""
    spread: Tensor
    """`(r,)` float32: standard deviation of the observations along each axis, in units of y."""
    code_shape: tuple[int, int]
    """(L, D)."""

    @property
    def rank(self) -> int:
        return self.axes.shape[1]

    def encode(self, w_plus: Tensor) -> Tensor:
        """`(N, L, D)` codes to `(N, r)` float64 states."""
        flat = w_plus.reshape(len(w_plus), -1)
        return torch.cat([((part - self.mean) @ self.axes).double() / self.scale for part in flat.split(_CHUNK)])

    def encode_change(self, change: Tensor) -> Tensor:
        """`(N, L, D)` or `(N, L * D)` differences of codes to `(N, r)` float64 differences of states."""
        return change.reshape(len(change), -1).double() @ self.axes.double() / self.scale

    def decode(self, states: Tensor) -> Tensor:
        """`(N, r)` states to `(N, L, D)` float32 codes inside the hull."""
        return self.decode_change(states) + self.mean.reshape(self.code_shape)

    def decode_change(self, change: Tensor) -> Tensor:
        """`(N, r)` differences of states to `(N, L, D)` float32 differences of codes."""
        return ((change.to(torch.float32) * self.scale) @ self.axes.T).reshape(-1, *self.code_shape)

    def outside(self, change: Tensor) -> Tensor:
        """`(L, D)` difference of codes to the `(L, D)` float32 part of it that no state expresses."""
        flat = change.reshape(1, -1).double()
        inside = self.encode_change(flat) * self.scale @ self.axes.double().T
        return (flat - inside).reshape(self.code_shape).float()


def _exact_axes(centred: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Axes and squared singular values from the N x N Gram matrix, float64."""
    centred = centred.double()
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    rank = max(1, min(rank, int((values > values[0] * 1e-10).sum())))
    axes = centred.T @ vectors[:, :rank] / values[:rank].sqrt().clamp(min=1e-30)
    return axes, values[:rank]


def _randomised_axes(centred: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Axes and squared singular values by subspace iteration (Halko, Martinsson & Tropp, SIAM Review 53, 2011)."""
    generator = torch.Generator().manual_seed(seed)
    width = min(rank + _OVERSAMPLING, min(centred.shape))
    probe = centred @ torch.randn(centred.shape[1], width, generator=generator).to(centred)
    for _ in range(_POWER_ITERATIONS):
        probe = centred @ (centred.T @ torch.linalg.qr(probe).Q)
    basis = torch.linalg.qr(probe).Q
    _, values, axes = torch.linalg.svd((basis.T @ centred).double(), full_matrices=False)
    return axes[:rank].T, values[:rank].square()


def fit_subspace(w_plus: Tensor, *, rank: int = 64, seed: int = 0) -> Subspace:
    """Principal axes of the codes.

    Args:
        w_plus: `(K, L, D)` float32 codes, K >= 2.
        rank: At most this many axes (at most K - 1 exist).
        seed: Of the randomised range finder for more than `GRAM_LIMIT` codes.
    """
    flat = w_plus.reshape(len(w_plus), -1)
    mean = flat.double().mean(0) if len(flat) <= GRAM_LIMIT else flat.mean(0)
    rank = max(1, min(rank, len(flat) - 1))
    if len(flat) <= GRAM_LIMIT:
        axes, energies = _exact_axes(flat.double() - mean, rank)
    else:
        axes, energies = _randomised_axes(flat - mean, rank, seed)
    if float(energies[0]) <= 1e-14 * float(flat.norm()) ** 2:  # every code is the same
        axes, energies = torch.zeros_like(axes[:, :1]), torch.zeros(1, dtype=torch.float64)
        axes[0] = 1.0
    count = axes.shape[1]
    scale = math.sqrt(float(energies.sum()) / (len(flat) * count)) or 1.0
    spread = (energies / len(flat)).sqrt() / scale
    return Subspace(
        mean.float(), axes.float().contiguous(), scale, spread.float(), (int(w_plus.shape[1]), int(w_plus.shape[2]))
    )
