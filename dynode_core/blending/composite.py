"""One face into one frame. Pixels where the mask is 0 keep their exact values."""

from __future__ import annotations

import torch
from torch import Tensor

from ..faces.warp import warp_to_frame
from .region import FaceRegion


def residual_change(edited: Tensor, base: Tensor, region: FaceRegion) -> Tensor:
    """What the edit changes: exactly 0 where `edited` equals `base`.

    Args:
        edited, base: `(3, S, S)` in about [-1, 1]: the rendered face with and without the edit.
        region: where they go.

    Returns:
        `(h, w, 3)` over the region's box, to be added to the frame, in its units.
    """
    return warp_into((edited.clamp(-1, 1) - base.clamp(-1, 1)) * 0.5, region)


def replacing_change(frame: Tensor, face: Tensor, region: FaceRegion) -> Tensor:
    """What turns the frame into the rendered face.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        face: `(3, S, S)` in about [-1, 1].
        region: where it goes.

    Returns:
        `(h, w, 3)` over the region's box.
    """
    rows, columns = region.slices()
    return warp_into((face.clamp(-1, 1) + 1) * 0.5, region) - frame[rows, columns]


def warp_into(image: Tensor, region: FaceRegion) -> Tensor:
    """`(C, S, S)` of the crop to `(h, w, C)` over the region's box."""
    height, width = region.mask.shape
    warped, _ = warp_to_frame(image[None], region.local_quad, height, width)
    return warped[0].permute(1, 2, 0)


def add_change(frame: Tensor, change: Tensor, region: FaceRegion) -> Tensor:
    """A copy of `frame` with the `(h, w, 3)` change added, limited to [0, 1], wherever the mask is above 0."""
    rows, columns = region.slices()
    part = frame[rows, columns]
    result = frame.clone()
    result[rows, columns] = torch.where(region.mask[..., None] > 0, (part + change).clamp(0, 1), part)
    return result
