"""Small pictures in the coordinates of the crop: there a moving head keeps still, so they can be compared over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .region import FaceRegion


def box_to_crop(values: Tensor, region: FaceRegion, side: int) -> Tensor:
    """Values over a region's box as its crop sees them.

    The quad is taken as the parallelogram of its first, second and last corner, which face quads are.

    Args:
        values: `(C, h, w)` over `region.box`.
        region: where.
        side: S of the result.

    Returns:
        `(C, S, S)`, antialiased; 0 outside the box.
    """
    height, width = values.shape[1:]
    corners = torch.from_numpy(region.local_quad[0]).float()
    top_left, bottom_left, top_right = corners[0], corners[1], corners[3]
    shrink = max(1.0, float((top_right - top_left).norm()) / side)
    small = values[None]
    if shrink > 1:
        size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        small = F.interpolate(small, size, mode="bilinear", antialias=True, align_corners=False)
    centres = (torch.arange(side) + 0.5) / side
    points = top_left + centres[None, :, None] * (top_right - top_left)
    points = points + centres[:, None, None] * (bottom_left - top_left)
    grid = points / torch.tensor([width, height]) * 2 - 1
    return F.grid_sample(small, grid[None], align_corners=False)[0]


def shrink_face(face: Tensor, side: int) -> Tensor:
    """`(3, S, S)` in about [-1, 1] to `(3, side, side)`, clamped and antialiased."""
    return F.interpolate(face.clamp(-1, 1)[None], (side, side), mode="bilinear", antialias=True)[0]


def blur_counting(values: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `(C, h, w)` in which each pixel counts as `weight` `(1, h, w)` says; far from any weight: 0.

    Normalised convolution: Knutsson and Westin 1993.
    """
    stacked = blur(torch.cat([values * weight, weight]), sigma)
    return stacked[:-1] / stacked[-1:].clamp_min(1e-4)


def blur(values: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `(C, h, w)`, zero outside."""
    radius = max(1, int(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=values.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    blurred = F.conv2d(values[:, None], kernel[None, None, :, None], padding=(radius, 0))
    return F.conv2d(blurred, kernel[None, None, None, :], padding=(0, radius))[:, 0]
