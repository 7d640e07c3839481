"""Choosing a few out of many."""

from __future__ import annotations

import numpy as np


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` positions out of `count`, increasing and evenly spread, first and last included: int64."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def spread_over_groups(groups: np.ndarray, most: int) -> np.ndarray:
    """At most `most` positions in `(n,)` non-decreasing numbers of groups, increasing: shared out by the sizes of the
    groups, but at least one of each; of one group the middle where it gets one, of all too many groups some."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    sizes = np.diff(np.append(starts, len(groups)))
    if len(starts) >= most:
        return (starts + sizes // 2)[spread(len(starts), most)]
    shares = np.ones(len(starts), dtype=np.int64)
    for _ in range(min(most, len(groups)) - len(starts)):
        shares[np.argmax(np.where(shares < sizes, sizes / shares, 0))] += 1
    parts = [
        start + (spread(size, share) if share > 1 else np.array([size // 2]))
        for start, size, share in zip(starts.tolist(), sizes.tolist(), shares.tolist(), strict=True)
    ]
    return np.concatenate(parts)
