"""What the trajectory says about frames it has not seen, beside what linear interpolation says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..types import InvertedClip, LatentTrajectory
from .interpolation import blend_observations
from .sampling import solve_at_times


def take_keyframes(inverted: InvertedClip, pick: slice | np.ndarray) -> InvertedClip:
    """The same clip with some of its keyframes."""
    index = np.arange(len(inverted.times))[pick]
    return dataclasses.replace(
        inverted,
        w_plus=inverted.w_plus[torch.from_numpy(index)],
        times=inverted.times[index],
        frame_indices=inverted.frame_indices[index],
        loss=inverted.loss[index],
    )


def relative_error(codes: Tensor, truth: Tensor) -> float:
    """||codes - truth|| / ||truth|| over all entries."""
    return float((codes.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-30))


def held_out_errors(
    inverted: InvertedClip, fit: Callable[[InvertedClip], LatentTrajectory], cuts_s: Sequence[float] = ()
) -> dict[str, float]:
    """Fit keyframes 0, 2, 4, ... and predict those between them.

    Returns:
        `held_out_rel` (the path as rendered by default), `held_out_smooth_rel` (the solution of the ODE alone) and
        `held_out_linear_rel`; nothing for fewer than 5 keyframes.
    """
    if len(inverted.times) < 5:
        return {}
    half = take_keyframes(inverted, slice(0, None, 2))
    asked = np.arange(1, len(inverted.times), 2)
    asked = asked[inverted.times[asked] < half.times[-1]]
    truth = inverted.w_plus[torch.from_numpy(asked)]
    trajectory = fit(half)
    times = inverted.times[asked]
    errors = {}
    for name, faithful in (("held_out_rel", 1.0), ("held_out_smooth_rel", 0.0)):
        errors[name] = relative_error(solve_at_times(trajectory, times, faithful=faithful).w_plus[:], truth)
    linear = blend_observations(half.w_plus, half.times, times, np.asarray(cuts_s, dtype=np.float64))
    return {**errors, "held_out_linear_rel": relative_error(linear, truth)}
