"""Solving along the whole clip with DOPRI5, all windows side by side.

The windows start from guesses taken off the observed path, so they are independent rows of one batch. Afterwards each
is shifted onto the end of the one before it. Where the field hardly depends on the state, which is how it is fitted,
one sweep is exact to the tolerance; otherwise the sweep is repeated from the corrected starts, and after four sweeps
the windows are solved one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .dopri5 import DenseSolution, solve_dense
from .solution import Solution, Status
from .vector_field import PathField

MAX_SWEEPS = 4
JUMP_TOLERANCE = 1e-3
"""Largest correction of a window's start, in units of y, that a shift repairs."""
MAX_STEPS = 4096


@dataclass(frozen=True)
class Leg:
    """A run through consecutive windows from one time to the end of the clip, or back to its beginning."""

    windows: Tensor
    """`(V,)` int64 in the order of travel."""
    x0: Tensor
    """`(V,)` local time at which each window is entered."""
    x1: float
    """Local time at which each is left: 1 forward, -1 backward."""
    jumps: Tensor
    """`(V, r)`: added on entering each window; zero for the first."""
    guesses: Tensor
    """`(V, r)`: the observed path where each is entered."""


def local_time(field: PathField, tau: Tensor) -> tuple[Tensor, Tensor]:
    """`(N,)` float64 tau to the window that each lies in and its local time; an edge belongs to the later window."""
    edges = field.edges.double()
    window = (torch.bucketize(tau, edges, right=True) - 1).clamp(0, len(edges) - 2)
    low, high = edges[window], edges[window + 1]
    return window, 2 * (tau - low) / (high - low) - 1


def plan_leg(field: PathField, start: float, *, forward: bool) -> Leg:
    """The leg from tau = `start` to 1 (forward) or to 0."""
    at = torch.tensor([start], dtype=torch.float64, device=field.edges.device)
    window, x = local_time(field, at)
    first = int(window[0])
    last = len(field.edges) - 2
    order = torch.arange(first, last + 1) if forward else torch.arange(first, -1, -1)
    order = order.to(field.edges.device)
    x0 = torch.full((len(order),), -1.0 if forward else 1.0, dtype=torch.float64, device=at.device)
    x0[0] = x[0]
    jumps = torch.zeros_like(field.starts[order])
    if forward:
        jumps[1:] = field.starts[order[1:]] - field.ends[order[:-1]]
        guesses = field.starts[order]
    else:
        jumps[1:] = field.ends[order[1:]] - field.starts[order[:-1]]
        guesses = field.ends[order]
    return Leg(order, x0, 1.0 if forward else -1.0, jumps, guesses)


class _Rows:
    """Windows of a leg as a field over V * B rows, B of them in each."""

    def __init__(self, field: PathField, windows: Tensor, batch: int) -> None:
        self._slopes, self._staged = field.bind(windows), field.staged(windows)
        self._count, self._batch = len(windows), batch

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self._slopes(x.view(self._count, -1), self._by_window(y)).reshape(y.shape)

    def stages(self, times: Tensor) -> Callable[[int, Tensor], Tensor]:
        """As `StagedField` asks for it."""
        slopes = self._staged(times.view(len(times), self._count, -1))
        return lambda stage, y: slopes(stage, self._by_window(y)).reshape(y.shape)

    def _by_window(self, y: Tensor) -> Tensor:
        return y.view(self._count, self._batch, -1)


def _solve_rows(field: PathField, leg: Leg, pick: slice, starts: Tensor, rtol: float, atol: float) -> DenseSolution:
    """Windows `pick` of a leg from `(V, B, r)` starts, as V * B rows."""
    batch, rank = starts.shape[1:]
    x0 = leg.x0[pick].to(starts).repeat_interleave(batch)
    return solve_dense(
        _Rows(field, leg.windows[pick], batch),
        starts.reshape(-1, rank),
        x0,
        torch.full_like(x0, leg.x1),
        rtol=rtol,
        atol=atol,
        max_steps=MAX_STEPS,
    )


def _read(dense: DenseSolution, leg: Leg, windows: Tensor, x: Tensor, shift: Tensor) -> Tensor:
    """States at `(N,)` times given by window and local time: `(B, N, r)`. shift: `(V, B, r)`, added per window."""
    count, batch, rank = shift.shape
    where = torch.full((int(leg.windows.max()) + 1,), -1, device=x.device)
    where[leg.windows] = torch.arange(len(leg.windows), device=x.device)
    slot = where[windows]
    order = torch.argsort(slot, stable=True)
    sorted_slot = slot[order]
    counts = torch.bincount(slot, minlength=count)
    column = torch.arange(len(x), device=x.device) - (counts.cumsum(0) - counts)[sorted_slot]
    queries = torch.full((count, max(1, int(counts.max()))), leg.x1, dtype=shift.dtype, device=x.device)
    queries[sorted_slot, column] = x[order].to(shift)
    states = dense.evaluate(queries.repeat_interleave(batch, dim=0)).view(count, batch, -1, rank) + shift[:, :, None]
    result = torch.empty(batch, len(x), rank, dtype=shift.dtype, device=x.device)
    result[:, order] = states[sorted_slot, :, column].transpose(0, 1)
    return result


def solve_leg(
    field: PathField,
    leg: Leg,
    y0: Tensor,
    tau: Tensor,
    *,
    rtol: float,
    atol: float,
    offset: Tensor | None = None,
    max_sweeps: int = MAX_SWEEPS,
) -> Solution:
    """Solve one leg with DOPRI5 and read it at `(N,)` float64 tau that lie on it.

    Args:
        y0: `(B, r)` state where the leg begins.
        offset: `(B, r)` distance of y0 from the observed path; taken at the first guess if None.
        max_sweeps: 0 solves the windows one after another from the start.
    """
    windows, x = local_time(field, tau)
    jumps = leg.jumps.to(y0)[:, None]
    offset = y0 - leg.guesses[0].to(y0) if offset is None else offset
    starts = leg.guesses.to(y0)[:, None] + offset
    starts[0] = y0
    nfe = steps = accepted = 0
    former = torch.full_like(starts, torch.inf)
    for sweep in range(1, max_sweeps + 1):
        dense = _solve_rows(field, leg, slice(None), starts, rtol, atol)
        nfe, steps, accepted = nfe + dense.nfe, steps + len(dense.starts), accepted + int(dense.accepted.sum())
        if dense.worst_status is not Status.SUCCESS:
            break
        gains = dense.final.view_as(starts) - starts
        corrected = y0 + (jumps + torch.cat([torch.zeros_like(gains[:1]), gains[:-1]])).cumsum(0)
        shift = corrected - starts
        # A shift does no harm where it is small, or where the last one left the gains as they were: over hundreds of
        # windows the errors of the solver alone add up to more than the tolerance.
        doubt = torch.minimum(shift.abs().max(), (gains - former).abs().max())
        if len(leg.windows) == 1 or float(doubt) < JUMP_TOLERANCE:
            y = _read(dense, leg, windows, x, shift)
            return Solution(y, nfe, Status.SUCCESS, steps, accepted, sweeps=sweep)
        starts, former = corrected, gains
    return _solve_in_turn(field, leg, y0, (windows, x), rtol, atol, (nfe, steps, accepted))


def _solve_in_turn(
    field: PathField,
    leg: Leg,
    y0: Tensor,
    times: tuple[Tensor, Tensor],
    rtol: float,
    atol: float,
    spent: tuple[int, int, int],
) -> Solution:
    """Windows one after another, each from the end of the one before."""
    windows, x = times
    result = torch.full((len(y0), len(x), y0.shape[1]), torch.nan, dtype=y0.dtype, device=y0.device)
    nfe, steps, accepted = spent
    y = y0
    for k in range(len(leg.windows)):
        y = y + leg.jumps[k].to(y)
        dense = _solve_rows(field, leg, slice(k, k + 1), y[None], rtol, atol)
        nfe, steps, accepted = nfe + dense.nfe, steps + len(dense.starts), accepted + int(dense.accepted.sum())
        if dense.worst_status is not Status.SUCCESS:
            return Solution(result, nfe, dense.worst_status, steps, accepted, sweeps=0)
        here = windows == leg.windows[k]
        result[:, here] = dense.evaluate(x[here].to(y)[None].expand(len(y), -1))
        y = dense.final
    return Solution(result, nfe, Status.SUCCESS, steps, accepted, sweeps=0)
