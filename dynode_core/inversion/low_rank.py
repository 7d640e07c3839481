"""Codes of a clip as a mean and offsets of low rank (after Xu et al., who share a base code and learn offsets; that the
offsets span few dimensions is ours).

What a face does in a second has few degrees of freedom; what the search leaves over in each keyframe has many.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def low_rank(coordinates: Tensor, rank: int, shots: np.ndarray | None = None) -> Tensor:
    """The nearest codes whose offsets from the mean of their shot span at most `rank` dimensions.

    Args:
        coordinates: `(K, L, D)`.
        shots: `(K,)` number of the shot of each; None: all are of one.
    """
    if shots is None:
        return _reduced(coordinates, rank)
    found = coordinates.clone()
    for shot in np.unique(shots):
        members = torch.from_numpy(np.flatnonzero(shots == shot)).to(coordinates.device)
        found[members] = _reduced(coordinates[members], rank)
    return found


def _reduced(coordinates: Tensor, rank: int) -> Tensor:
    if len(coordinates) <= rank + 1:  # so few offsets from their own mean span no more
        return coordinates
    mean = coordinates.mean(dim=0, keepdim=True)
    u, s, v = torch.linalg.svd((coordinates - mean).flatten(1), full_matrices=False)
    return mean + ((u[:, :rank] * s[:rank]) @ v[:rank]).view_as(coordinates)
