"""One face into one frame. Pixels where the mask is 0 keep their exact values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .crop_space import blur, shrink_face
from .region import FaceRegion

ACTIVITY_SIDE = 96
_ACTIVITY_BLUR = 3.5
_CALM, _ACTIVE = 0.015, 0.05
"""Mean change of colour, in [0, 1] units, up to which an edit only tints and from which it redraws."""


def residual_change(edited: Tensor, base: Tensor, region: FaceRegion) -> Tensor:
    """What the edit changes: exactly 0 where `edited` equals `base`.

    Args:
        edited, base: `(3, S, S)` in about [-1, 1]: the rendered face with and without the edit.
        region: where they go.

    Returns:
        `(h, w, 3)` over the region's box, to be added to the frame, in its units.
    """
    return warp_into((edited.clamp(-1, 1) - base.clamp(-1, 1)) * 0.5, region)


def edit_activity(edited: Tensor, base: Tensor) -> Tensor:
    """Where an edit changes features and not only tones: `(1, ACTIVITY_SIDE, ACTIVITY_SIDE)` in [0, 1].

    Args:
        edited, base: `(3, S, S)` in about [-1, 1]. Equal ones give exactly 0.
    """
    change = (shrink_face(edited, ACTIVITY_SIDE) - shrink_face(base, ACTIVITY_SIDE)) * 0.5
    strength = change.abs().mean(dim=0, keepdim=True)
    spread = blur(F.max_pool2d(strength[None], 5, stride=1, padding=2)[0], _ACTIVITY_BLUR)
    share = ((spread - _CALM) / (_ACTIVE - _CALM)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def warp_into(image: Tensor, region: FaceRegion) -> Tensor:
    """`(C, S, S)` of the crop to `(h, w, C)` over the region's box."""
    return region.from_crop.apply(image).permute(1, 2, 0).contiguous()


def add_change(frame: Tensor, change: Tensor, region: FaceRegion, out: Tensor | None = None) -> Tensor:
    """A copy of `frame` with the region's share of the `(h, w, 3)` change added, limited to [0, 1], wherever the mask
    is above 0.

    Args:
        out: `(H, W, 3)` to be written to; None: a new tensor.
    """
    rows, columns = region.slices()
    part = frame[rows, columns]
    result = torch.empty_like(frame) if out is None else out
    result.copy_(frame)
    changed = torch.add(part, change, alpha=region.share).clamp_(0, 1)
    result[rows, columns] = torch.where(region.mask[..., None] > 0, changed, part)
    return result
