"""Light and colour of the source carried over to a rendered face."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..faces.crop import crop
from .composite import warp_into
from .crop_space import blur_counting, box_to_crop, shrink_face
from .region import FaceRegion

_SIDE = 96
"""Colour offsets are so smooth that this many points a side hold them."""
_BLUR_SHARE = 0.06
_LARGEST_OFFSET = 0.3
"""In [-1, 1] units: a larger difference is an object in front of the face, not light."""


def match_to_base(frame: Tensor, face: Tensor, base: Tensor, region: FaceRegion) -> Tensor:
    """Add to `face` the low frequencies in which the source differs from its reconstruction.

    What the edit changes stays, since only the unedited reconstruction is compared. The blur counts only what the mask
    shows.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        face, base: `(3, S, S)` in about [-1, 1], with and without the edit.
        region: where the face goes.

    Returns:
        `(3, S, S)`.
    """
    source = crop(frame[None], region.quad[None], _SIDE)[0]
    weight = box_to_crop(region.mask[None], region, _SIDE)
    offset = (source - shrink_face(base, _SIDE)).clamp(-_LARGEST_OFFSET, _LARGEST_OFFSET)
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
