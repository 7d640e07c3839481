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


def stitch_masks(mask: Tensor, *, edge_px: int = 0, inner_px: int = 0, outer_px: int = 0) -> StitchMasks:
    """The masks of stitching tuning, as STIT's `create_masks` makes them.

    Args:
        mask: `(N, 1, S, S)`, 1 where the face is.
        edge_px: so many pixels along the edge of the crop are never content.
        inner_px: gap between content and border.
        outer_px: width of the border.

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
    return StitchMasks(content, (_dilate(content, inner_px + outer_px) - inner).clamp(0, 1))


def masked_l2(images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Scalar: squared differences summed over channels, averaged over the pixels of the mask (STIT's `masked_l2`).

    Args:
        images, targets: `(N, C, S, S)`.
        mask: `(N, 1, S, S)`; an empty one gives 0.
    """
    return ((images - targets).square() * mask).sum() / mask.sum().clamp_min(1)


def _dilate(mask: Tensor, radius_px: int) -> Tensor:
    """Grown by a square."""
    return F.max_pool2d(mask, 2 * radius_px + 1, stride=1, padding=radius_px) if radius_px else mask
