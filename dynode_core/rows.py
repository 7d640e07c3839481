"""Rows of W+ by their depth in the generator: the same depth means the same in generators of different length."""

from __future__ import annotations

import torch
from torch import Tensor

from .types import EditDirection


def depth_mask(depth: tuple[float, float], num_ws: int) -> Tensor:
    """`(L,)` float32 with 1 between two fractions of the depth."""
    mask = torch.zeros(num_ws)
    mask[round(depth[0] * num_ws) : round(depth[1] * num_ws)] = 1
    return mask


def rows_of(direction: EditDirection, num_ws: int) -> Tensor:
    """`(L, D)`: a direction on the rows of its depth, 0 on the others."""
    return depth_mask(direction.depth, num_ws)[:, None] * direction.direction
