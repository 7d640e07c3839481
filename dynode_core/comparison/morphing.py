"""What a path is compared with: frames in between by blending the codes of neighbouring keyframes.

The paper calls it morphing (section 4.3): z* = z_s + alpha (z_t - z_s), along straight lines or along a spline.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..ode.cuts import split_at_cuts
from ..ode.interpolation import blend_observations

_COLUMNS = 1024


def morph_straight(values: Tensor, knots: np.ndarray, times: np.ndarray, cuts: np.ndarray) -> Tensor:
    """Straight lines between neighbours: `(K, L, D)` codes at `(K,)` knots to `(N, L, D)` at `times`.

    Args:
        cuts: `(C,)` times at which the picture changes: nothing is blended across them.
    """
    return blend_observations(values, knots, times, cuts)


def morph_along_spline(values: Tensor, knots: np.ndarray, times: np.ndarray, cuts: np.ndarray) -> Tensor:
    """As `morph_straight`, along a natural cubic spline through all codes of a shot."""
    from scipy.interpolate import CubicSpline

    runs, used = split_at_cuts(knots, tuple(float(cut) for cut in cuts))
    shot = np.searchsorted(np.asarray(used), times, side="right")
    flat = values.reshape(len(values), -1)
    result = torch.empty(len(times), flat.shape[1], dtype=values.dtype)
    for index, run in enumerate(runs):
        here = torch.from_numpy(np.flatnonzero(shot == index))
        inside = knots[run]
        asked = np.clip(times[shot == index], inside[0], inside[-1])
        for low in range(0, flat.shape[1], _COLUMNS):
            columns = slice(low, low + _COLUMNS)
            codes = flat[run, columns].double().numpy()
            found = (
                CubicSpline(inside, codes, bc_type="natural")(asked) if len(inside) > 1 else codes.repeat(len(asked), 0)
            )
            result[here, columns] = torch.from_numpy(found).to(values)
    return result.reshape(len(times), *values.shape[1:])
