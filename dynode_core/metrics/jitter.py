"""How much what should follow a clip shakes from frame to frame (ours)."""

from __future__ import annotations

import numpy as np


def shake(values: np.ndarray, times: np.ndarray) -> float:
    """Root mean square distance of each entry from the straight line between its neighbours in time.

    Motion at constant speed does not count. Pass differences (reconstruction minus clip) so that other motion does not
    count either.

    Args:
        values: `(N, ...)` in any unit.
        times: `(N,)` seconds, increasing.
    Returns:
        In the unit of `values`; NaN with fewer than three entries. White noise of deviation s at equal gaps gives
        1.22 s.
    """
    if len(times) < 3:
        return float("nan")
    flat = np.asarray(values, np.float64).reshape(len(times), -1)
    gaps = np.diff(times)
    weight = (gaps[:-1] / (gaps[:-1] + gaps[1:]))[:, None]
    between = (1 - weight) * flat[:-2] + weight * flat[2:]
    return float(np.sqrt(np.mean(np.square(flat[1:-1] - between))))
