"""Solving dz/dt = f(z, t) along the clip by any method, from any state at any time of the clip."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from .dopri5 import VectorField
from .external import FIXED_METHODS, TORCHDIFFEQ_METHODS
from .picard import solve_leg_in_parallel
from .solution import Solution, Status
from .solve import solve
from .threads import one_thread
from .vector_field import PathField
from .windows import Leg, local_time, plan_leg, solve_leg

OWN_METHODS = ("dopri5", "parallel", "dopri5 in turn")
METHODS = (*OWN_METHODS, *TORCHDIFFEQ_METHODS)
FLOAT32_LIMIT = 1e-6
"""Relative tolerances below this one are beyond float32: the solve then runs in float64."""


def check_method(method: str) -> None:
    """Raise ValueError for a solver that does not exist."""
    if method not in METHODS:
        raise ValueError(f"method should be one of {', '.join(METHODS)}, but is {method!r}.")


def _in_one_window(field: PathField, window: Tensor) -> VectorField:
    """The field as f(x, y) for rows that are all in one window."""
    return lambda x, y: field.in_windows(window, x[None], y[None])[0]


def _leg_with_torchdiffeq(
    field: PathField, leg: Leg, y0: Tensor, tau: Tensor, *, method: str, rtol: float, atol: float
) -> Solution:
    """Windows one after another, so that no step of a foreign solver crosses an edge."""
    windows, x = local_time(field, tau)
    result = torch.full((len(y0), len(tau), y0.shape[1]), torch.nan, dtype=y0.dtype, device=y0.device)
    y, nfe, steps, status = y0, 0, 0, Status.SUCCESS
    for k, window in enumerate(leg.windows):
        y = y + leg.jumps[k].to(y)
        here = torch.nonzero(windows == window)[:, 0]
        inside, place = torch.unique(x[here].to(y), return_inverse=True)  # neighbours may be one in float32
        if leg.x1 < 0:
            inside, place = inside.flip(0), len(inside) - 1 - place
        first = leg.x0[k : k + 1].to(y)
        last = torch.full_like(first, leg.x1)
        keep = (inside != first) & (inside != last)
        grid = torch.cat([first, inside[keep], last]) if float(first) != leg.x1 else first
        part = solve(
            _in_one_window(field, window[None]),
            y,
            grid,
            method=method,
            rtol=rtol,
            atol=atol,
            step_size=2 / 128 if method in FIXED_METHODS else None,
        )
        nfe, steps = nfe + part.nfe, steps + part.num_steps
        if part.status is not Status.SUCCESS:
            status = part.status
            break
        position = torch.searchsorted(grid * leg.x1, inside[place] * leg.x1).clamp(max=len(grid) - 1)
        result[:, here] = part.y[:, position]
        y = part.y[:, -1]
    return Solution(result, nfe, status, steps, 0, sweeps=0)


def _solve_one_leg(
    field: PathField, leg: Leg, y0: Tensor, tau: Tensor, method: str, rtol: float, atol: float, offset: Tensor | None
) -> Solution:
    if method in TORCHDIFFEQ_METHODS:
        return _leg_with_torchdiffeq(field, leg, y0, tau, method=method, rtol=rtol, atol=atol)
    if method == "parallel":
        solution = solve_leg_in_parallel(field, leg, y0, tau, rtol=rtol, atol=atol, offset=offset)
        if solution is not None:
            return solution
    sweeps = {"max_sweeps": 0} if method == "dopri5 in turn" else {}
    return solve_leg(field, leg, y0, tau, rtol=rtol, atol=atol, offset=offset, **sweeps)


def solve_path(
    field: PathField,
    y0: Tensor,
    tau: np.ndarray,
    *,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-6,
    anchor: float = 0.0,
    offset: Tensor | None = None,
) -> Solution:
    """States at `(N,)` normalised times in [0, 1], in any order, of the solutions with y(anchor) = y0.

    Args:
        y0: `(B, r)`; computed in float32, in float64 if rtol < 1e-6.
        method: One of `METHODS`. "parallel" falls back to "dopri5" where its iteration does not converge.
        anchor: Normalised time of y0; the path is solved forward and backward from it.
        offset: `(B, r)` distance of y0 from the observed path at the anchor, if known: saves sweeps.
    Returns:
        A `Solution` with y `(B, N, r)`.
    Raises:
        ValueError: Unknown method.
    """
    check_method(method)
    dtype = torch.float64 if rtol < FLOAT32_LIMIT and field.edges.device.type != "mps" else torch.float32
    edges, starts, ends = field.edges, field.starts, field.ends
    working = copy.deepcopy(field).to(dtype)
    if edges.device.type != "mps":
        working.keep_precision(edges, starts, ends)
    y0 = y0.to(device=edges.device, dtype=dtype)
    offset = None if offset is None else offset.to(y0)
    unique, place = np.unique(np.clip(np.asarray(tau, dtype=np.float64), 0.0, 1.0), return_inverse=True)
    y = torch.empty(len(y0), len(unique), y0.shape[1], dtype=dtype, device=y0.device)
    parts = []
    before = int(np.searchsorted(unique, anchor, side="left"))
    for forward, pick in ((True, slice(before, None)), (False, slice(0, before))):
        asked = torch.from_numpy(unique[pick]).to(edges.device)
        if len(asked) == 0:
            continue
        leg = plan_leg(working, anchor, forward=forward)
        with one_thread(edges.device):
            part = _solve_one_leg(working, leg, y0, asked, method, rtol, atol, offset)
        y[:, pick] = part.y
        parts.append(part)
    return Solution(
        y[:, torch.from_numpy(place.reshape(-1)).to(y.device)],
        sum(part.nfe for part in parts),
        max((part.status for part in parts), default=Status.SUCCESS),
        sum(part.num_steps for part in parts),
        sum(part.num_accepted for part in parts),
        max((part.sweeps for part in parts), default=0),
    )
