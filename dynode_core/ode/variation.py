"""Seeded random variation around a trajectory: a latent SDE with additive noise.

The noise is a Matern-3/2 process, the solution of the linear SDE dv = -(2 k v + k^2 e) dt + s dW, de = v dt. Its paths
have a continuous velocity, so a face sways and does not tremble. They are drawn with the exact transition of that SDE
(Sarkka & Solin, Applied Stochastic Differential Equations, 2019, section 6.2) on a grid that belongs to the clip, not
to the outputs: the variation at a time is the same whatever else is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..types import LatentTrajectory
from .driven import ControlPath
from .subspace import Subspace, fit_subspace

_POINTS_PER_LENGTH = 4
_MOST_POINTS = 20_000
_AXES = 16


@dataclass(frozen=True)
class Variation:
    """How the path is varied."""

    amplitude: float = 0.0
    """Standard deviation of the variation in units of the path: 1 is as much as the codes spread over the clip."""
    length_s: float = 0.5
    """Time (s) over which it changes, > 0."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.amplitude <= 10.0:
            raise ValueError(f"The amplitude of the variation should be 0 to 10, but is {self.amplitude:g}.")
        if not 0.01 <= self.length_s <= 1000.0:
            raise ValueError(f"The length of the variation should be 0.01 s to 1000 s, but is {self.length_s:g} s.")


def _transition(rate: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """`(2, 2)` transition of (e, v) over `step`, and the Cholesky factor of its noise, for unit variance of e."""
    move = math.exp(-rate * step) * np.array([[1 + rate * step, step], [-(rate**2) * step, 1 - rate * step]])
    settled = np.diag([1.0, rate**2])
    return move, np.linalg.cholesky(settled - move @ settled @ move.T + 1e-12 * settled)


def noise_path(duration_s: float, size: int, variation: Variation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (s) `(M,)`, values and velocities `(M, size)` of independent processes of unit variance that begin at 0."""
    step = variation.length_s / _POINTS_PER_LENGTH
    step = max(step, duration_s / _MOST_POINTS)
    count = max(1, math.ceil(duration_s / step))
    move, noise = _transition(math.sqrt(3.0) / variation.length_s, step)
    rng = np.random.default_rng(variation.seed)
    states = np.zeros((count + 1, 2, size))
    for i in range(count):
        states[i + 1] = move @ states[i] + noise @ rng.standard_normal((2, size))
    return np.arange(count + 1) * step, states[:, 0], states[:, 1]


def _axes_of(trajectory: LatentTrajectory) -> Tensor:
    """`(m, r)` float64: standard deviations of the codes along their principal axes, as vectors of states."""
    subspace = trajectory.subspace
    if isinstance(subspace, Subspace):
        return torch.diag(subspace.spread.double())
    found = fit_subspace(trajectory.w_plus, rank=_AXES)
    return subspace.encode_change(found.decode_change(torch.diag(found.spread)))


def variation_control(trajectory: LatentTrajectory, variation: Variation) -> ControlPath:
    """The variation as a control of the vector field, 0 at the first keyframe."""
    duration = float(trajectory.times[-1] - trajectory.times[0])
    axes = _axes_of(trajectory)
    times, values, velocities = noise_path(duration, len(axes), variation)
    in_states = [variation.amplitude * torch.from_numpy(part) @ axes for part in (values, velocities * duration)]
    return ControlPath(torch.from_numpy(times / duration), in_states[0], in_states[1])
