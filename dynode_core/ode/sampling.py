"""Solving a trajectory at chosen times, as observed or from an edited code."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..checks import check_family, check_finite, check_shape
from ..types import EditedLatent, LatentTrajectory, TrajectorySample
from .cuts import cut_positions
from .interpolation import blend_observations
from .path import solve_path
from .solution import Solution
from .subspace import Subspace
from .vector_field import PathField

_CHUNK = 256
_SLACK_S = 1e-6


def clamp_times(trajectory: LatentTrajectory, times: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """`(N,)` times in seconds, those outside the clip moved to its ends, and sentences that say so.

    Raises:
        ValueError: No times, or times that are not finite.
    """
    times = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"times should be a list of at least one time in seconds, but has shape {times.shape}.")
    check_finite("times", times)
    first = min(float(trajectory.times[0]), float(trajectory.frame_times[0]))
    last = max(float(trajectory.times[-1]), float(trajectory.frame_times[-1]))
    outside = int(((times < first - _SLACK_S) | (times > last + _SLACK_S)).sum())
    notes = []
    if outside:
        notes.append(
            f"{outside} of {len(times)} times lie outside the clip ({first:g} s to {last:g} s); they show its first or "
            "last frame, because a trajectory says nothing about what was not filmed."
        )
    return np.clip(times, first, last), notes


def normalised(trajectory: LatentTrajectory, times: np.ndarray) -> np.ndarray:
    """`(N,)` seconds to tau in [0, 1], held at the first and last keyframe."""
    start, end = float(trajectory.times[0]), float(trajectory.times[-1])
    return np.clip((times - start) / (end - start), 0.0, 1.0)


class _Observations:
    """Keyframe codes and solved states at keyframes: what the faithful <-> smooth dial blends."""

    def __init__(
        self, trajectory: LatentTrajectory, tau: np.ndarray, knots: np.ndarray, at_knots: Tensor | None
    ) -> None:
        self._trajectory, self._tau, self._knots, self._at_knots = trajectory, tau, knots, at_knots
        self._cuts = cut_positions(trajectory.vector_field)  # type: ignore[arg-type]

    def base_codes(self, states: Tensor, faithful: float, part: slice) -> Tensor:
        """`(n, r)` solved states to `(n, L, D)` codes: solution + faithful * (observed - solved at the keyframes)."""
        subspace = self._trajectory.subspace
        if self._at_knots is None:
            return subspace.decode(states)
        tau = self._tau[part]
        solved = blend_observations(self._at_knots, self._knots, tau, self._cuts)
        observed = blend_observations(self._trajectory.w_plus, self._knots, tau, self._cuts)
        mean = subspace.mean.reshape(1, *subspace.code_shape)
        return subspace.decode(states - faithful * solved) + faithful * (observed - mean)


@dataclass(frozen=True)
class _Solver:
    """A method with its tolerances."""

    field: PathField
    method: str
    rtol: float
    atol: float

    def __call__(self, y0: Tensor, tau: np.ndarray, *, anchor: float = 0.0, offset: Tensor | None = None) -> Solution:
        solution = solve_path(
            self.field, y0, tau, method=self.method, rtol=self.rtol, atol=self.atol, anchor=anchor, offset=offset
        )
        solution.raise_for_status(self.method)
        return solution


def _solve_rows(solver: _Solver, change: Tensor | None, tau: np.ndarray, anchor: float) -> Solution:
    """Observed path, and changed path if `(1, r)` `change` of the state at `anchor` is given: rows of one batch."""
    start = solver.field.starts[:1].double().cpu()
    if change is None:
        return solver(start, tau)
    if anchor == 0.0:
        return solver(torch.cat([start, start + change]), tau)
    base = solver(start, np.append(tau, anchor))
    edited = solver(base.y[:, -1].double().cpu() + change, tau, anchor=anchor, offset=change)
    return Solution(
        torch.cat([base.y[:, :-1], edited.y]),
        base.nfe + edited.nfe,
        edited.status,
        base.num_steps + edited.num_steps,
        base.num_accepted + edited.num_accepted,
        edited.sweeps,
    )


def _difference(trajectory: LatentTrajectory, latent: EditedLatent | None, anchor_s: float | None) -> Tensor | None:
    """`(L, D)` what the edit changed, None if nothing."""
    if latent is None:
        return None
    check_family("The edited latent", latent.family, trajectory.family)
    check_shape("The edited latent", latent.w_plus_0, tuple(trajectory.w_plus_0.shape))
    check_finite("The edited latent", latent.w_plus_0)
    base = trajectory.w_plus_0 if anchor_s is None else latent.base_w_plus_0
    difference = latent.w_plus_0.cpu().float() - base.cpu().float()
    return difference if bool(difference.any()) else None


def _decode(
    observations: _Observations, states: Tensor, difference: Tensor | None, subspace: Subspace, faithful: float
) -> tuple[Tensor, Tensor]:
    """`(1 or 2, N, r)` states to the `(N, L, D)` codes without and with the edit, in chunks."""
    count = states.shape[1]
    base = torch.empty(count, *subspace.code_shape)
    edited = base if difference is None else torch.empty_like(base)
    outside = None if difference is None else subspace.outside(difference)
    for low in range(0, count, _CHUNK):
        part = slice(low, min(low + _CHUNK, count))
        base[part] = observations.base_codes(states[0, part], faithful, part)
        if outside is not None:
            edited[part] = base[part] + subspace.decode_change(states[1, part] - states[0, part]) + outside
    return base, edited


def solve_at_times(
    trajectory: LatentTrajectory,
    times: np.ndarray,
    *,
    latent: EditedLatent | None = None,
    method: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    faithful: float = 1.0,
    fps: Fraction | None = None,
    anchor_s: float | None = None,
) -> TrajectorySample:
    """Codes at `times`: the paper's Solve(f_theta, z_0, (t_0, ..., t_k)), from z_0 as observed and as edited.

    Args:
        trajectory: From `fit_trajectory`.
        times: `(N,)` seconds in any order; outside the clip they are held at its ends, with a warning.
        latent: The edited first code; its difference from the observed first code travels along the path.
        method: Solver, one of `ode.METHODS`; that of the trajectory if None, as are `rtol` and `atol`.
        faithful: 1 passes the observed codes exactly, 0 is the solution of the ODE alone, which is smoother. In [0, 1].
        fps: Rate at which the codes are to be played; that of the clip if None.
        anchor_s: Time (s) at which `latent` was edited: its difference from its own base code is put in there and
            carried backward and forward. None: the first keyframe.
    Returns:
        The codes with and without the edit, CPU float32.
    Raises:
        ValueError: `latent` does not fit the trajectory; `faithful` outside [0, 1]; no or non-finite times.
        RuntimeError: The solver did not reach the end; says what to do.
    """
    if not 0.0 <= faithful <= 1.0:
        raise ValueError(f"faithful should be between 0 (smooth) and 1 (exact), but is {faithful:g}.")
    difference = _difference(trajectory, latent, anchor_s)
    times, notes = clamp_times(trajectory, times)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    solver = _Solver(
        trajectory.vector_field,  # type: ignore[arg-type]
        method or trajectory.method,
        trajectory.rtol if rtol is None else rtol,
        trajectory.atol if atol is None else atol,
    )
    subspace = trajectory.subspace
    change = None if difference is None else subspace.encode_change(difference[None])
    anchor = 0.0 if anchor_s is None else float(normalised(trajectory, np.array([anchor_s]))[0])
    tau, knots = normalised(trajectory, times), normalised(trajectory, trajectory.times)
    solution = _solve_rows(solver, change, np.concatenate([tau, knots]) if faithful > 0 else tau, anchor)
    states = solution.y.cpu()
    observations = _Observations(trajectory, tau, knots, states[0, len(tau) :] if faithful > 0 else None)
    base, edited = _decode(observations, states[:, : len(tau)], difference, subspace, faithful)
    return TrajectorySample(
        edited,
        base,
        times,
        trajectory.fps if fps is None else Fraction(fps),
        trajectory.family,
        trajectory.generator_id,
        nfe=solution.nfe,
        status=solution.status.label,
        edits=() if latent is None else latent.edits,
        tuning=trajectory.tuning,
    )
