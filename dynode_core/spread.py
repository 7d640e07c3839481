"""Choosing a few out of many."""

from __future__ import annotations

import numpy as np


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` positions out of `count`, increasing and evenly spread, first and last included: int64."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
