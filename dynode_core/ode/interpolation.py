"""Straight lines between neighbouring keyframes, held on either side of a cut."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def neighbours(knots: np.ndarray, times: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the keyframe before each time and the share of the one after it.

    Args:
        knots: `(K,)` increasing times of keyframes, K >= 2.
        times: `(N,)`; clamped to the knots.
        cuts: `(C,)` times of cuts: up to a cut the share is 0, from it on 1.
    Returns:
        `(N,)` int64 in 0 .. K - 2 and `(N,)` float64 in [0, 1].
    """
    times = np.clip(times, knots[0], knots[-1])
    before = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(knots) - 2)
    share = (times - knots[before]) / (knots[before + 1] - knots[before])
    for cut in cuts:
        gap = np.searchsorted(knots, cut, side="left") - 1
        share = np.where(before == gap, (times >= cut).astype(np.float64), share)
    return before, share


def blend_observations(values: Tensor, knots: np.ndarray, times: np.ndarray, cuts: np.ndarray) -> Tensor:
    """`(K, ...)` values at the knots to `(N, ...)` values at `times`, same dtype."""
    before, share = neighbours(knots, times, cuts)
    index = torch.from_numpy(before)
    weight = torch.from_numpy(share).to(values).view(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[index], values[index + 1], weight)
