"""One face into one frame. Pixels where the mask is 0 keep their exact values."""

from __future__ import annotations

import torch
from torch import Tensor

from ..faces.warp import warp_to_frame
from .region import FaceRegion


def add_residual(frame: Tensor, edited: Tensor, base: Tensor, region: FaceRegion) -> Tensor:
    """The frame plus what the edit changed. `edited` equal to `base` gives the frame back exactly.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        edited, base: `(3, S, S)` in about [-1, 1]: the rendered face with and without the edit.
        region: where they go.

    Returns:
        `(H, W, 3)`, a new tensor.
    """
    change = (edited.clamp(-1, 1) - base.clamp(-1, 1)) * 0.5
    warped = warp_into(change, region)
    rows, columns = region.slices()
    part = frame[rows, columns]
    return put_part(frame, part + region.mask[..., None] * warped, region)


def put_face(frame: Tensor, face: Tensor, region: FaceRegion) -> Tensor:
    """The rendered face laid over the frame.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        face: `(3, S, S)` in about [-1, 1].
        region: where it goes.

    Returns:
        `(H, W, 3)`, a new tensor.
    """
    warped = warp_into((face.clamp(-1, 1) + 1) * 0.5, region)
    rows, columns = region.slices()
    part = frame[rows, columns]
    return put_part(frame, part + region.mask[..., None] * (warped - part), region)


def warp_into(image: Tensor, region: FaceRegion) -> Tensor:
    """`(3, S, S)` of the crop to `(h, w, 3)` over the region's box."""
    height, width = region.mask.shape
    warped, _ = warp_to_frame(image[None], region.local_quad, height, width)
    return warped[0].permute(1, 2, 0)


def put_part(frame: Tensor, part: Tensor, region: FaceRegion) -> Tensor:
    """A copy of `frame` with `part` `(h, w, 3)`, limited to [0, 1], wherever the mask is above 0."""
    rows, columns = region.slices()
    result = frame.clone()
    result[rows, columns] = torch.where(region.mask[..., None] > 0, part.clamp(0, 1), frame[rows, columns])
    return result
