"""A trajectory as points of a plane, for a panel in which it can be run through: what the page needs, as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..spread import spread
from ..types import LatentTrajectory
from .sampling import solve_at_times
from .subspace import Subspace, fit_subspace

MOST_POINTS, MOST_KEYFRAMES = 241, 400
_DIGITS = 4


def solved_states(trajectory: LatentTrajectory, axes: Subspace, times: np.ndarray) -> np.ndarray:
    """`(N, r)` solution of the ODE alone at `(N,)` seconds, along the axes of a drawing."""
    return axes.encode(solve_at_times(trajectory, times, faithful=0.0, method="parallel").w_plus[:]).numpy()


def path_in_plane(trajectory: LatentTrajectory) -> dict[str, Any]:
    """The solution of the ODE and the observed codes along their two strongest axes.

    Returns:
        `path` and `observed`: lists of [x, y] (y 0 where the codes move along a line); `times` and `observed_times`:
        their seconds; `frame_times`: seconds of the frames of the clip, at most 10,000 of them; `cuts`: seconds.
    """
    axes = fit_subspace(trajectory.w_plus, rank=2)
    ends = float(trajectory.times[0]), float(trajectory.times[-1])
    times = np.linspace(*ends, MOST_POINTS)
    solved = solved_states(trajectory, axes, times)
    index = spread(len(trajectory.times), MOST_KEYFRAMES)
    observed = axes.encode(trajectory.w_plus[index.tolist()]).numpy()
    frames = trajectory.frame_times
    return {
        "path": _plane(solved),
        "times": np.round(times, _DIGITS).tolist(),
        "observed": _plane(observed),
        "observed_times": np.round(trajectory.times[index], _DIGITS).tolist(),
        "frame_times": np.round(frames, _DIGITS).tolist() if len(frames) <= 10_000 else [],
        "cuts": [float(cut) for cut in trajectory.certificate.get("cuts_s", ())],
    }


def _plane(states: np.ndarray) -> list[list[float]]:
    padded = np.pad(states, ((0, 0), (0, max(0, 2 - states.shape[1]))))[:, :2]
    rounded: list[list[float]] = np.round(padded, _DIGITS).tolist()
    return rounded
