"""Where a tuned generator must agree with the source, and how far it does (Tzaban et al. 2022, STIT).

Convention: masks are `(N, 1, S, S)` float32 of 0 and 1 in the coordinates of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_shape


@dataclass(frozen=True)
class StitchMasks:
    """Where the edit is kept and where the source is matched."""

    content: Tensor
    """The mask itself, without the edge of the crop: here the edited face stays as it is."""
    border: Tensor
    """The band around it: here the face should look like the source."""
    full: Tensor
    """Content and everything up to the outer end of the band."""


def stitch_masks(
    mask: Tensor, *, edge_px: int = 0, inner_px: int = 0, outer_px: int = 0, whole_border: bool = False
) -> StitchMasks:
    """The masks of stitching tuning, as STIT's `create_masks` makes them.

    Args:
        mask: `(N, 1, S, S)`, 1 where the face is.
        edge_px: so many pixels along the edge of the crop are never content.
        inner_px: gap between content and border.
        outer_px: width of the border.
        whole_border: everything beyond the content and the gap is border.
    Raises:
        ValueError: another shape, or lengths below 0.
    """
    check_shape("mask", mask, ("N", 1, mask.shape[-1], mask.shape[-1]))
    if min(edge_px, inner_px, outer_px) < 0:
        raise ValueError(
            f"edge_px, inner_px and outer_px should be 0 or more, but are {edge_px}, {inner_px}, {outer_px}."
        )
    inside = torch.zeros_like(mask)
    inside[..., edge_px : mask.shape[-2] - edge_px, edge_px : mask.shape[-1] - edge_px] = 1
    content = mask * inside
    inner = _dilate(content, inner_px) * inside
    full = _dilate(content, inner_px + outer_px)
    border = 1 - inner if whole_border else (full - inner).clamp(0, 1)
    return StitchMasks(content, border, full)


def masked_l2(images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Scalar: squared differences summed over channels, averaged over the pixels of the mask (STIT's `masked_l2`).

    Args:
        images, targets: `(N, C, S, S)`.
        mask: `(N, 1, S, S)`; an empty one gives 0.
    """
    return _masked_mean((images - targets).square(), mask)


def masked_l1(images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """As `masked_l2`, with absolute differences."""
    return _masked_mean((images - targets).abs(), mask)


def _masked_mean(difference: Tensor, mask: Tensor) -> Tensor:
    return (difference * mask).sum() / mask.sum().clamp_min(1)


def _dilate(mask: Tensor, radius_px: int) -> Tensor:
    """Grown by a square."""
    return F.max_pool2d(mask, 2 * radius_px + 1, stride=1, padding=radius_px) if radius_px else mask
