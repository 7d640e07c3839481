"""How close pictures are to others: mean square error and structural similarity (paper, Table 1).

Convention: pixels in [0, 1]. Pixels in [-1, 1] would make the mean square error four times as large.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SIGMA, RADIUS = 1.5, 5
"""Window of the structural similarity: a Gaussian of this deviation, 11 pixels wide."""
K1, K2 = 0.01, 0.03


def _check(found: Tensor, wanted: Tensor) -> None:
    if found.ndim != 4 or found.shape != wanted.shape:
        raise ValueError(
            f"Pictures to compare should have one shape (N, 3, H, W), but have {tuple(found.shape)} and "
            f"{tuple(wanted.shape)}."
        )


def mean_square_error(found: Tensor, wanted: Tensor) -> Tensor:
    """`(N, C, H, W)` pictures in [0, 1] to `(N,)` float64."""
    _check(found, wanted)
    return (found.double() - wanted.double()).square().mean(dim=(1, 2, 3))


def structural_similarity(found: Tensor, wanted: Tensor) -> Tensor:
    """SSIM of each pair (Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 13, 2004), mean over channels.

    Args:
        found: `(N, C, H, W)` in [0, 1], H and W at least 11 pixels.
        wanted: The same shape.
    Returns:
        `(N,)` float64, 1 for equal pictures. Windows that would reach over the edge are left out.
    Raises:
        ValueError: The shapes differ, or the pictures are smaller than the window.
    """
    _check(found, wanted)
    side = 2 * RADIUS + 1
    if min(found.shape[2:]) < side:
        raise ValueError(f"Pictures should be at least {side} pixels wide and high, but are {tuple(found.shape[2:])}.")
    taps = torch.exp(-0.5 * (torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64) / SIGMA) ** 2)
    taps = (taps / taps.sum()).to(found.device)

    def blur(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[2:])
        flat = functional.conv2d(functional.conv2d(flat, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
        return flat.view(*x.shape[:2], *flat.shape[2:])

    x, y = found.double(), wanted.double()
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * covariance + K2**2) / (var_x + var_y + K2**2)
    return (luminance * structure).mean(dim=(1, 2, 3))
