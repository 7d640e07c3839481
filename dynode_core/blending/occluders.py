"""Things in front of the face, found where the source differs from its reconstruction: a generator draws no hands."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.crop import crop
from .crop_space import blur, box_to_crop, shrink_face
from .region import FaceRegion

SIDE = 128
_LOWEST_THRESHOLD = 0.11
"""In [0, 1] units of colour: below this a difference is never an object."""
_TYPICAL_ERRORS = 3.5
_SMALLEST_OBJECT = 11
"""Points of `SIDE`: narrower differences are eyelids, teeth, rims of glasses."""
_GROW = 11


def find_occluders(frame: Tensor, base: Tensor, region: FaceRegion) -> Tensor:
    """How much of the face is covered.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        base: `(3, S, S)` in about [-1, 1]: the reconstruction without edit.
        region: where the face goes.

    Returns:
        `(1, SIDE, SIDE)` in [0, 1] in crop coordinates: 1 where something that the reconstruction lacks is in front.
    """
    mask = box_to_crop(region.mask[None], region, SIDE)
    source = crop(frame[None], region.quad[None], SIDE)[0]
    difference = (source - shrink_face(base, SIDE)) * 0.5
    inside = mask[0] > 0.5
    if int(inside.sum()) < 16:
        return torch.zeros_like(mask)
    light = difference[:, inside].median(dim=1).values[:, None, None]
    error = blur((difference - light).norm(dim=0, keepdim=True), 1.5)
    threshold = max(_LOWEST_THRESHOLD, _TYPICAL_ERRORS * float(error[0][inside].median()))
    score = ((error - threshold) / (0.5 * threshold)).clamp(0, 1)
    opened = -_highest(-score, _SMALLEST_OBJECT)
    objects = torch.minimum(_highest(opened, _SMALLEST_OBJECT + 2), score)
    return blur(_highest(objects, _GROW), 2.5).clamp(0, 1)


def _highest(values: Tensor, size: int) -> Tensor:
    """Maximum over `size` x `size` points."""
    return F.max_pool2d(values[None], size, stride=1, padding=size // 2)[0]
