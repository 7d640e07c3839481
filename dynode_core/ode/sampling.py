"""Solving a trajectory at chosen times, as observed or from edited codes."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_family, check_finite, check_shape
from ..types import EditedLatent, LatentTrajectory, TrajectorySample
from .beyond import carry_on, damped_travel, end_velocities
from .decoding import BaseCodes, EditedCodes, codes_of
from .driven import ControlPath, DrivenField
from .edit_limit import EditLimit
from .later_edits import EditTimeline, LaterEdit, timeline
from .path import check_method, solve_path
from .solution import Solution
from .variation import Variation, variation_control
from .vector_field import PathField

_SLACK_S = 1e-6


def _span(trajectory: LatentTrajectory) -> tuple[float, float]:
    """Seconds at which the clip begins and ends."""
    first = min(float(trajectory.times[0]), float(trajectory.frame_times[0]))
    return first, max(float(trajectory.times[-1]), float(trajectory.frame_times[-1]))


def clamp_times(
    trajectory: LatentTrajectory, times: np.ndarray, *, extrapolate_s: float = 0.0
) -> tuple[np.ndarray, list[str]]:
    """`(N,)` times in seconds, those outside the clip moved to its ends, and sentences that say so.

    Args:
        extrapolate_s: Above 0 the times stay as they are, and the sentences say that what they show is a guess.
    Raises:
        ValueError: No times, or times that are not finite.
    """
    times = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"times should be a list of at least one time in seconds, but has shape {times.shape}.")
    check_finite("times", times)
    first, last = _span(trajectory)
    outside = int(((times < first - _SLACK_S) | (times > last + _SLACK_S)).sum())
    if not outside:
        return (times if extrapolate_s > 0 else np.clip(times, first, last)), []
    where = f"{outside} of {len(times)} times lie outside the clip ({first:g} s to {last:g} s);"
    if extrapolate_s > 0:
        return times, [
            f"{where} they are extrapolated: the motion at the end goes on and dies away with a time constant of "
            f"{extrapolate_s:g} s. It is a guess that nothing in the clip supports."
        ]
    note = f"{where} they show its first or last frame, because a trajectory says nothing about what was not filmed."
    return np.clip(times, first, last), [note]


def normalised(trajectory: LatentTrajectory, times: np.ndarray) -> np.ndarray:
    """`(N,)` seconds to tau in [0, 1], held at the first and last keyframe."""
    start, end = float(trajectory.times[0]), float(trajectory.times[-1])
    return np.clip((times - start) / (end - start), 0.0, 1.0)


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


@dataclass(frozen=True)
class SolveSettings:
    """What `solve_at_times` and `solve_batch_at_times` take as keywords."""

    method: str | None = None
    """Solver, one of `ode.METHODS`; that of the trajectory if None, as are `rtol` and `atol`."""
    rtol: float | None = None
    atol: float | None = None
    faithful: float = 1.0
    """1 passes the observed codes exactly, 0 is the solution of the ODE alone, which is smoother. In [0, 1]."""
    fps: Fraction | None = None
    """Rate at which the codes are to be played; that of the clip if None."""
    anchor_s: float | None = None
    """Time (s) at which the latent was edited: its difference from its own base code is put in there and carried
    backward and forward. None: the first keyframe."""
    later: Sequence[LaterEdit] = ()
    """What the edit becomes at later times."""
    variation: Variation = Variation()
    """Random variation of the edited path; amplitude 0 is none."""
    edit_limit: float = 0.0
    """0 adds the edit in full everywhere; from 1 on see `EditLimit.reach`."""
    extrapolate_s: float = 0.0
    """0 holds times outside the clip at its ends; else the time constant (s) with which the motion dies away there."""
    stream: bool = False
    """Codes are computed when they are read, so that memory does not grow with them."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.faithful <= 1.0:
            raise ValueError(f"faithful should be between 0 (smooth) and 1 (exact), but is {self.faithful:g}.")
        if self.edit_limit != 0.0 and not 1.0 <= self.edit_limit <= 100.0:
            raise ValueError(f"edit_limit should be 0 (off) or 1 to 100, but is {self.edit_limit:g}.")
        if not 0.0 <= self.extrapolate_s <= 1000.0:
            raise ValueError(f"extrapolate_s should be 0 (off) to 1000 s, but is {self.extrapolate_s:g}.")
        if self.method is not None:
            check_method(self.method)
        for name, value, lowest in (("rtol", self.rtol, 1e-12), ("atol", self.atol, 0.0)):
            if value is not None and not lowest <= value <= 0.1:
                raise ValueError(f"{name} should be between {lowest:g} and 0.1, but is {value:g}.")
        if self.anchor_s is not None and not math.isfinite(self.anchor_s):
            raise ValueError(f"anchor_s should be a time in seconds, but is {self.anchor_s:g}.")


@dataclass(frozen=True)
class _Edit:
    """One first latent: how it changes the path."""

    latent: EditedLatent | None
    change: Tensor
    """`(1, r)` float64: what it adds to the state at the anchor."""
    outside: Tensor
    """`(J, L, D)`: what it adds outside the subspace."""
    timeline: EditTimeline | None
    controls: list[ControlPath]
    limit: EditLimit | None

    @property
    def changes_anything(self) -> bool:
        return bool(self.controls or self.change.any() or self.outside.any())

    def codes(self, base: BaseCodes, states: Tensor) -> EditedCodes:
        """The edited path over solved `states` `(N, r)`."""
        return EditedCodes(base, states, self.outside, self.timeline, self.limit)


def _checked_difference(trajectory: LatentTrajectory, latent: EditedLatent, base: Tensor) -> Tensor:
    """`(L, D)` float32: the edited code less `base`."""
    check_family("The edited latent", latent.family, trajectory.family)
    check_shape("The edited latent", latent.w_plus_0, tuple(trajectory.w_plus_0.shape))
    check_finite("The edited latent", latent.w_plus_0)
    return latent.w_plus_0.cpu().float() - base.cpu().float()


def _anchor(trajectory: LatentTrajectory, anchor_s: float | None) -> float:
    """Normalised time at which edits are put in."""
    return 0.0 if anchor_s is None else float(normalised(trajectory, np.array([anchor_s]))[0])


def _edit_of(trajectory: LatentTrajectory, latent: EditedLatent | None, settings: SolveSettings) -> _Edit:
    subspace, later = trajectory.subspace, settings.later
    difference, base = torch.zeros_like(trajectory.w_plus_0), trajectory.w_plus_0
    if latent is not None:
        base = base if settings.anchor_s is None else latent.base_w_plus_0
        difference = _checked_difference(trajectory, latent, base)
    controls, course = [], None
    differences = difference[None]
    if later:
        times = normalised(trajectory, np.array([edit.time_s for edit in later]))
        asked = [_checked_difference(trajectory, edit.latent, edit.latent.base_w_plus_0) for edit in later]
        anchor = _anchor(trajectory, settings.anchor_s)
        course = timeline(difference, anchor, list(zip(times.tolist(), asked, strict=True)))
        differences = course.differences
        states = subspace.encode_change(differences)
        controls.append(ControlPath(course.tau, states - states[course.anchor]))
    if settings.variation.amplitude > 0:
        controls.append(variation_control(trajectory, settings.variation))
    outside = torch.stack([subspace.outside(part) for part in differences])
    limit = EditLimit(settings.edit_limit, base.cpu().float(), trajectory.w_plus) if settings.edit_limit else None
    return _Edit(latent, subspace.encode_change(difference[None]), outside, course, controls, limit)


def _solve_rows(solver: _Solver, edits: Sequence[_Edit], tau: np.ndarray, anchor: float) -> Solution:
    """Observed path, and the path with each edit put in at `anchor`, in as few batches as there are starts."""
    start = solver.field.starts[:1].double().cpu()
    changes = torch.cat([start[:0], *[edit.change for edit in edits]])
    if anchor == 0.0 or len(changes) == 0:
        return solver(torch.cat([start, start + changes]), tau)
    base = solver(start, np.append(tau, anchor))
    edited = solver(base.y[:, -1].double().cpu() + changes, tau, anchor=anchor, offset=changes)
    return _joined(base, edited.y, base.y[:, :-1], edited)


def _joined(base: Solution, rows: Tensor, first: Tensor, added: Solution) -> Solution:
    """The cost of two solutions with `first` above `rows`."""
    return Solution(
        torch.cat([first, rows]),
        base.nfe + added.nfe,
        max(base.status, added.status),
        base.num_steps + added.num_steps,
        base.num_accepted + added.num_accepted,
        added.sweeps,
    )


def _solve_driven(solver: _Solver, edits: Sequence[_Edit], tau: np.ndarray, anchor: float) -> Solution:
    """As `_solve_rows`, each edit with its own controls."""
    base = solver(solver.field.starts[:1].double().cpu(), np.append(tau, anchor))
    at_anchor = base.y[:, -1].double().cpu()
    result = dataclasses.replace(base, y=base.y[:, :-1])
    for edit in edits:
        field = DrivenField(solver.field, edit.controls) if edit.controls else solver.field
        driven = dataclasses.replace(solver, field=field)
        row = driven(at_anchor + edit.change, tau, anchor=anchor, offset=edit.change)
        states = row.y
        if isinstance(field, DrivenField):
            control = field.control_at(torch.from_numpy(np.append(tau, anchor)))
            states = states + (control[:-1] - control[-1]).to(states)
        result = _joined(result, states, result.y, row)
    return result


def solve_batch_at_times(
    trajectory: LatentTrajectory, times: np.ndarray, latents: Sequence[EditedLatent | None], **options: Any
) -> list[TrajectorySample]:
    """`solve_at_times` for several first latents: one sample each, which share the codes without edit.

    Without `later` and `variation` all paths are rows of one batch.

    Args:
        latents: One or more; None leaves the clip as observed.
        options: Fields of `SolveSettings`.
    """
    settings = SolveSettings(**options)
    if not latents:
        raise ValueError(
            "solve_batch_at_times needs at least one latent (None for the clip as observed), but got none."
        )
    edits = [_edit_of(trajectory, latent, settings) for latent in latents]
    times, notes = clamp_times(trajectory, times, extrapolate_s=settings.extrapolate_s)
    for note in notes:
        warnings.warn(note, stacklevel=3)
    solver = _Solver(
        trajectory.vector_field,  # type: ignore[arg-type]
        settings.method or trajectory.method,
        trajectory.rtol if settings.rtol is None else settings.rtol,
        trajectory.atol if settings.atol is None else settings.atol,
    )
    tau, knots = normalised(trajectory, times), normalised(trajectory, trajectory.times)
    wanted = np.concatenate([tau, knots if settings.faithful > 0 else knots[:0], knots[[0, -1]]])
    moving = [edit for edit in edits if edit.changes_anything]
    solve_all = _solve_driven if any(edit.controls for edit in moving) else _solve_rows
    solution = solve_all(solver, moving, wanted, _anchor(trajectory, settings.anchor_s))
    states = solution.y.cpu()
    outputs = states[:, : len(tau)]
    if settings.extrapolate_s > 0:
        travel = damped_travel(trajectory, times, settings.extrapolate_s)
        outputs = carry_on(outputs, travel, end_velocities(solver.field, states[:, -2:]))
    at_knots = states[0, len(tau) : -2] if settings.faithful > 0 else None
    base = BaseCodes(trajectory, outputs[0], tau, knots, at_knots, settings.faithful)
    return _samples(base, outputs[1:], edits, settings, _facts(trajectory, times, settings, solution))


def _facts(
    trajectory: LatentTrajectory, times: np.ndarray, settings: SolveSettings, solution: Solution
) -> dict[str, Any]:
    """Fields that all samples share."""
    return {
        "times": times,
        "fps": trajectory.fps if settings.fps is None else Fraction(settings.fps),
        "family": trajectory.family,
        "generator_id": trajectory.generator_id,
        "nfe": solution.nfe,
        "status": solution.status.label,
        "tuning": trajectory.tuning,
    }


def _samples(
    base: BaseCodes,
    rows: Tensor,
    edits: Sequence[_Edit],
    settings: SolveSettings,
    facts: dict[str, Any],
) -> list[TrajectorySample]:
    observed, samples, row = codes_of(base, stream=settings.stream), [], iter(rows)
    for edit in edits:
        codes = observed
        if edit.changes_anything:
            codes = codes_of(edit.codes(base, next(row)), stream=settings.stream)
        names = () if edit.latent is None else edit.latent.edits
        names += tuple(f"{name} at {part.time_s:g} s" for part in settings.later for name in part.latent.edits)
        samples.append(TrajectorySample(codes, observed, edits=names, **facts))
    return samples


def solve_at_times(
    trajectory: LatentTrajectory, times: np.ndarray, *, latent: EditedLatent | None = None, **options: Any
) -> TrajectorySample:
    """Codes at `times`: the paper's Solve(f_theta, z_0, (t_0, ..., t_k)), from z_0 as observed and as edited.

    Args:
        trajectory: From `fit_trajectory`.
        times: `(N,)` seconds in any order; outside the clip they are held at its ends, with a warning.
        latent: The edited first code; its difference from the observed first code travels along the path.
        options: Fields of `SolveSettings`: method, rtol, atol, faithful, fps, anchor_s, later, variation,
            edit_limit, extrapolate_s, stream.
    Returns:
        The codes with and without the edit, CPU float32.
    Raises:
        ValueError: `latent` does not fit the trajectory; `faithful` outside [0, 1]; no or non-finite times.
        RuntimeError: The solver did not reach the end; says what to do.
    """
    return solve_batch_at_times(trajectory, times, [latent], **options)[0]
