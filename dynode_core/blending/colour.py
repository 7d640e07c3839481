"""Light and colour of the source carried over to a rendered face."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.crop import crop
from .composite import warp_into
from .region import FaceRegion

_SIDE = 96
"""Colour offsets are so smooth that this many points a side hold them."""
_BLUR_SHARE = 0.06
_LARGEST_OFFSET = 0.3
"""In [-1, 1] units: a larger difference is an object in front of the face, not light."""


def match_to_base(frame: Tensor, face: Tensor, base: Tensor, region: FaceRegion) -> Tensor:
    """Add to `face` the low frequencies in which the source differs from its reconstruction.

    What the edit changes stays, since only the unedited reconstruction is compared. The blur counts only what the mask
    shows (normalised convolution, Knutsson and Westin 1993).

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        face, base: `(3, S, S)` in about [-1, 1], with and without the edit.
        region: where the face goes.

    Returns:
        `(3, S, S)`.
    """
    source = crop(frame[None], region.quad[None], _SIDE)[0]
    weight = mask_in_crop(region, _SIDE)
    small = F.interpolate(base.clamp(-1, 1)[None], (_SIDE, _SIDE), mode="bilinear", antialias=True)[0]
    offset = (source - small).clamp(-_LARGEST_OFFSET, _LARGEST_OFFSET)
    smooth = blur_counting(offset, weight, _BLUR_SHARE * _SIDE)
    return face.clamp(-1, 1) + F.interpolate(smooth[None], face.shape[1:], mode="bilinear", align_corners=False)[0]


def match_at_edge(frame: Tensor, face: Tensor, region: FaceRegion) -> Tensor:
    """Shift the colour of `face` so that it agrees with the frame on average along the edge of the mask.

    For faces that come without their unedited version. Arguments and result as in `match_to_base`.
    """
    rows, columns = region.slices()
    ring = (region.mask * (1 - region.mask))[..., None]
    total = ring.sum()
    if total < 1e-3:
        return face
    warped = warp_into(face.clamp(-1, 1), region)
    offset = ((frame[rows, columns] * 2 - 1 - warped) * ring).sum(dim=(0, 1)) / total
    return face.clamp(-1, 1) + offset.clamp(-_LARGEST_OFFSET, _LARGEST_OFFSET)[:, None, None]


def blur_counting(values: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `(C, h, w)` in which each pixel counts as `weight` `(1, h, w)` says; far from any weight: 0."""
    radius = max(1, int(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=values.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    stacked = torch.cat([values * weight, weight])[:, None]
    stacked = F.conv2d(stacked, kernel[None, None, :, None], padding=(radius, 0))
    stacked = F.conv2d(stacked, kernel[None, None, None, :], padding=(0, radius))[:, 0]
    return stacked[:-1] / stacked[-1:].clamp_min(1e-4)


def mask_in_crop(region: FaceRegion, side: int) -> Tensor:
    """`(1, side, side)` mask of a region as its crop sees it, 0 outside the region's box."""
    height, width = region.mask.shape
    corners = torch.from_numpy(region.local_quad[0]).float()
    centres = (torch.arange(side) + 0.5) / side
    top_left, bottom_left, top_right = corners[0], corners[1], corners[3]
    points = top_left + centres[None, :, None] * (top_right - top_left)
    points = points + centres[:, None, None] * (bottom_left - top_left)
    grid = points / torch.tensor([width, height]) * 2 - 1
    return F.grid_sample(region.mask[None, None], grid[None], align_corners=False)[0]
