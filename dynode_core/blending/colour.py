"""Light and colour of the source carried over to a rendered face."""

from __future__ import annotations

import torch
from torch import Tensor

from .composite import warp_into
from .crop_space import blur_counting, box_to_crop, shrink_face
from .region import FaceRegion

_SIDE = 96
"""Colour offsets are so smooth that this many points a side hold them."""
_BLUR_SHARE = 0.06
_LARGEST_OFFSET = 0.3
"""In [-1, 1] units: a larger difference is an object in front of the face, not light."""


def light_offset(frame: Tensor, base: Tensor, region: FaceRegion) -> Tensor:
    """The low frequencies in which the source differs from its reconstruction.

    Added to the edited face they leave what the edit changes, since only the unedited reconstruction is compared. The
    blur counts only what the mask shows.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        base: `(3, S, S)` in about [-1, 1], without the edit.
        region: where the face goes.

    Returns:
        `(h, w, 3)` over the region's box, in the frame's units.
    """
    rows, columns = region.slices()
    seen = torch.cat([frame[rows, columns].permute(2, 0, 1), region.mask[None]])
    source, weight = box_to_crop(seen, region, _SIDE).split([3, 1])
    offset = (source * 2 - 1 - shrink_face(base, _SIDE)).clamp(-_LARGEST_OFFSET, _LARGEST_OFFSET)
    return warp_into(blur_counting(offset, weight, _BLUR_SHARE * _SIDE) * 0.5, region)


def offset_at_edge(frame: Tensor, face: Tensor, region: FaceRegion) -> Tensor:
    """The colour that a face lacks on average along the edge of the mask: for faces that come without their unedited
    version.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        face: `(h, w, 3)` over the region's box, in [0, 1].
        region: where the face goes.

    Returns:
        `(3,)`.
    """
    rows, columns = region.slices()
    ring = (region.mask * (1 - region.mask))[..., None]
    total = ring.sum()
    if total < 1e-3:
        return torch.zeros(3)
    offset = ((frame[rows, columns] - face) * ring).sum(dim=(0, 1)) / total
    return offset.clamp(-_LARGEST_OFFSET / 2, _LARGEST_OFFSET / 2)
