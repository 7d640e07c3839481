"""Smooth values over time without lag, and fill the frames where nothing was found."""

from __future__ import annotations

import numpy as np


def smooth_over_time(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian filter over the first axis, mirrored at both ends (the STIT reference does the same).

    Args:
        values: `(T, ...)` float.
        sigma: standard deviation in frames; 0 gives a copy.

    Returns:
        `(T, ...)` float64. A constant, and a clip of one frame, stay as they are.

    Raises:
        ValueError: `sigma` is negative or not finite.
    """
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"The smoothing should be 0 frames or more, but is {sigma}.")
    if sigma == 0 or len(values) < 2:
        return np.array(values, dtype=np.float64)
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(np.asarray(values, dtype=np.float64), sigma, axis=0, mode="reflect")


def fill_missing(values: np.ndarray, known: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
    """Values at the frames that are not `known`: linear in time between neighbours, held at both ends.

    Args:
        values: `(T, ...)` float; what stands at unknown frames is not read.
        known: `(T,)` bool, at least one True.
        times: `(T,)` seconds, increasing; None: evenly spaced.

    Returns:
        `(T, ...)` float64.
    """
    if not known.any():
        raise ValueError("There is no known frame to fill the others from.")
    values = np.asarray(values, dtype=np.float64)
    times = np.arange(len(values), dtype=np.float64) if times is None else np.asarray(times, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    filled = flat.copy()
    missing = np.flatnonzero(~known)
    if len(missing):
        have = np.flatnonzero(known)
        after = np.searchsorted(have, missing).clip(0, len(have) - 1)
        before = np.where(have[after] > missing, (after - 1).clip(0), after)
        left, right = have[before], have[after]
        span = times[right] - times[left]
        weight = np.where(span > 0, (times[missing] - times[left]) / np.where(span > 0, span, 1.0), 0.0).clip(0, 1)
        filled[missing] = flat[left] + (flat[right] - flat[left]) * weight[:, None]
    return filled.reshape(values.shape)
