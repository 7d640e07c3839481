"""Solvers of torchdiffeq by name: the reference that ours is measured against, and methods we do not have."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from .solution import Solution, Status

ADAPTIVE_METHODS = ("dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED_METHODS = ("euler", "midpoint", "heun3", "rk4", "explicit_adams", "implicit_adams")
ADAMS_METHODS, ADAMS_ORDER = ("explicit_adams", "implicit_adams"), 4
"""Higher orders, torchdiffeq's default, are unstable at the steps that suit a clip."""
TORCHDIFFEQ_DOPRI5 = "torchdiffeq dopri5"
TORCHDIFFEQ_METHODS = (TORCHDIFFEQ_DOPRI5, *ADAPTIVE_METHODS, *FIXED_METHODS)


def import_torchdiffeq() -> ModuleType:
    """The torchdiffeq package.

    Raises:
        RuntimeError: It is not installed.
    """
    try:
        import torchdiffeq
    except ImportError as error:
        raise RuntimeError(
            "This method comes from the package torchdiffeq, which is not installed. Install it with "
            "'pip install torchdiffeq', or choose 'dopri5' or 'parallel', which need nothing."
        ) from error
    return torchdiffeq


def _failure(error: BaseException) -> Status:
    """The status that an error of torchdiffeq stands for."""
    return Status.STEP_TOO_SMALL if "underflow" in str(error) else Status.MAX_STEPS


def solve_with_torchdiffeq(
    field: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    times: Tensor,
    *,
    method: str,
    rtol: float,
    atol: float,
    step_size: float | None = None,
    max_steps: int = 4096,
) -> Solution:
    """Integrate with torchdiffeq; all rows share one step.

    Args:
        field: `(B,)` times and `(B, D)` states to `(B, D)`.
        y0: `(B, D)` state at `times[0]`.
        times: `(N,)` strictly monotone.
        method: One of `TORCHDIFFEQ_METHODS`.
        step_size: Step of the fixed methods; a 1/64 of the span if None.
        max_steps: Bound on the steps of the adaptive methods per output time.
    Raises:
        ValueError: Unknown method.
        RuntimeError: torchdiffeq is missing.
    """
    if method not in TORCHDIFFEQ_METHODS:
        raise ValueError(f"method should be one of {', '.join(TORCHDIFFEQ_METHODS)}, but is {method!r}.")
    torchdiffeq = import_torchdiffeq()
    calls = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return field(t.expand(len(y)), y)

    name = "dopri5" if method == TORCHDIFFEQ_DOPRI5 else method
    if method in FIXED_METHODS:
        span = float((times[-1] - times[0]).abs())
        options: dict[str, object] = {"step_size": step_size or span / 64, "interp": "cubic"}
        if method in ADAMS_METHODS:
            options["max_order"] = ADAMS_ORDER
    else:
        options = {"max_num_steps": max_steps}
    if len(times) == 1:
        return Solution(y0[:, None], 0, Status.SUCCESS, 0, 0, sweeps=0)
    try:
        y = torchdiffeq.odeint(counted, y0, times, rtol=rtol, atol=atol, method=name, options=options)
        status = Status.SUCCESS if bool(torch.isfinite(y[-1]).all()) else Status.NOT_FINITE
        states = y.transpose(0, 1)
    except AssertionError as error:
        status, states = _failure(error), torch.full((len(y0), len(times), y0.shape[1]), torch.nan).to(y0)
    return Solution(states, calls, status, num_steps=calls, num_accepted=0, sweeps=0)
