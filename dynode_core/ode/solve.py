"""One call for every solver: initial-value problems over a plain vector field."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_finite
from .dopri5 import VectorField, solve_dense
from .external import TORCHDIFFEQ_METHODS, solve_with_torchdiffeq
from .solution import Solution


def _check_monotone(times: Tensor) -> None:
    check_finite("times", times)
    steps = times.diff()
    if len(steps) and not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ValueError(
            "times should go strictly up or strictly down, but "
            f"they are {[round(float(t), 6) for t in times[:8]]}{'...' if len(times) > 8 else ''}."
        )


def solve(
    field: VectorField,
    y0: Tensor,
    times: Tensor,
    *,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-6,
    max_steps: int = 4096,
    step_size: float | None = None,
) -> Solution:
    """Solve dy/dt = f(t, y), y(times[0]) = y0, at `times`.

    Args:
        field: `(B,)` times and `(B, D)` states to `(B, D)`.
        y0: `(B, D)`.
        times: `(N,)` strictly increasing or decreasing.
        method: "dopri5" (ours: each row its own step) or a name of `external.TORCHDIFFEQ_METHODS`.
        step_size: Step of the fixed methods.
    Returns:
        A `Solution`; `raise_for_status` turns a failed one into an error.
    Raises:
        ValueError: Times are not monotone, or the method is unknown.
    """
    _check_monotone(times)
    times = times.to(y0)
    if method in TORCHDIFFEQ_METHODS:
        return solve_with_torchdiffeq(
            field, y0, times, method=method, rtol=rtol, atol=atol, step_size=step_size, max_steps=max_steps
        )
    if method != "dopri5":
        raise ValueError(f"method should be one of dopri5, {', '.join(TORCHDIFFEQ_METHODS)}, but is {method!r}.")
    rows = torch.ones(len(y0)).to(y0)
    dense = solve_dense(field, y0, times[0] * rows, times[-1] * rows, rtol=rtol, atol=atol, max_steps=max_steps)
    y = dense.evaluate(times[None].expand(len(y0), -1))
    return Solution(y, dense.nfe, dense.worst_status, len(dense.starts), int(dense.accepted.sum()))
