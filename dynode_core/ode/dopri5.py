"""Dormand-Prince 5(4) for a batch of independent rows.

Every row has its own time, step and error control, so rows that live in different windows of the clip advance side by
side. The step itself is a chain of tensor operations without a read-back to the host; whether rows are still under way
is asked once per `check_every` steps. Dense output: the fourth-order interpolant of Shampine (Math. Comp. 46, 1986).
Coefficients: Dormand & Prince, J. Comp. Appl. Math. 6, 1980.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from .solution import Status

VectorField = Callable[[Tensor, Tensor], Tensor]
"""f(t, y): `(B,)` times and `(B, D)` states to `(B, D)` derivatives."""


class StagedField(Protocol):
    """A field that prepares a whole step: the times of the stages are known before their states."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """As a `VectorField`."""
        ...

    def stages(self, times: Tensor) -> Callable[[int, Tensor], Tensor]:
        """`(6, B)` times to the derivatives as a function of the number of the stage and `(B, D)` states."""
        ...


_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_DENSE = (  # row i: weights of k_i in theta, theta^2, theta^3, theta^4
    (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
    (0.0, 0.0, 0.0, 0.0),
    (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
    (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
    (0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
    (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
    (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
)
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
EVALUATIONS_PER_STEP = 6


@lru_cache(maxsize=16)
def _tableau(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Nodes `(6, 1)`, stage weights, and the weights of error and dense output `(5, 7)` on the device of the solve."""

    def constant(values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(device=device, dtype=dtype)

    after = torch.cat([constant(_ERROR)[None], constant(_DENSE).T])
    return constant(_NODES)[:, None], tuple(constant(row)[None] for row in _STAGES), after


def _combine(weights: Tensor, slopes: list[Tensor]) -> Tensor:
    """`(n, s)` weights and s slopes `(B, D)` to the `(n, B, D)` weighted sums."""
    return (weights @ torch.stack(slopes).flatten(1)).view(-1, *slopes[0].shape)


def _rms(x: Tensor) -> Tensor:
    """`(B, D)` to `(B,)` root mean square."""
    return x.square().mean(dim=-1).sqrt()


@dataclass(frozen=True)
class DenseSolution:
    """Piecewise quartic solution of every row. S step attempts, B rows, D dimensions.

    Convention: attempt s of row b starts at `starts[s, b]` and spans `sizes[s, b]` (signed); `ends[s, b]` is the time
    that the row had reached afterwards, equal to its start where the attempt was rejected.
    """

    starts: Tensor
    sizes: Tensor
    ends: Tensor
    coefficients: Tensor
    """`(S, 5, B, D)`: powers 0 to 4 of the fraction of the step."""
    final: Tensor
    """`(B, D)`: the state at the end time."""
    status: Tensor
    """`(B,)` int64 of `Status`."""
    accepted: Tensor
    """`(B,)` int64: accepted steps."""
    direction: Tensor
    """`(B,)` 1 or -1."""
    nfe: int

    @property
    def worst_status(self) -> Status:
        """The gravest status among the rows."""
        return Status(int(self.status.max()))

    def evaluate(self, times: Tensor, chunk: int = 4096) -> Tensor:
        """`(B, Q)` times within the solved span to `(B, Q, D)` states; memory grows with `chunk`, not with steps."""
        rows = torch.arange(times.shape[0], device=times.device)[:, None]
        ends = (self.ends * self.direction).T.contiguous()
        starts, sizes, coefficients = self.starts.T, self.sizes.T, self.coefficients.permute(2, 0, 1, 3)
        parts = []
        for query in times.split(chunk, dim=1):
            step = torch.searchsorted(ends, (query * self.direction[:, None]).contiguous())
            step = step.clamp(max=ends.shape[1] - 1)
            size = sizes[rows, step]
            fraction = torch.where(size == 0, torch.zeros_like(size), (query - starts[rows, step]) / size)
            c = coefficients[rows, step]
            x = fraction[..., None]
            parts.append((((c[..., 4, :] * x + c[..., 3, :]) * x + c[..., 2, :]) * x + c[..., 1, :]) * x + c[..., 0, :])
        return torch.cat(parts, dim=1)


def _first_step(
    field: VectorField, t: Tensor, y: Tensor, slope: Tensor, span: Tensor, rtol: float, atol: float
) -> Tensor:
    """`(B,)` size of the first step (Hairer, Norsett & Wanner, Solving ODEs I, II.4); one evaluation."""
    scale = atol + rtol * y.abs()
    d0, d1 = _rms(y / scale), _rms(slope / scale)
    tiny = torch.finfo(y.dtype).tiny
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1.clamp(min=tiny))
    h0 = torch.minimum(h0, span.abs())
    step = (h0 * span.sign())[:, None]
    d2 = _rms((field(t + step[:, 0], y + step * slope) - slope) / scale) / h0.clamp(min=tiny)
    steepest = torch.maximum(d1, d2)
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest.clamp(min=tiny)) ** 0.2)
    size = torch.minimum(torch.minimum(100 * h0, h1), span.abs())
    return torch.where(torch.isfinite(size), size, 1e-6 * span.abs())


@dataclass
class _State:
    """What changes from step to step; every tensor keeps its shape."""

    t: Tensor
    y: Tensor
    slope: Tensor
    size: Tensor
    status: Tensor
    accepted: Tensor


def _step(
    field: VectorField | StagedField,
    state: _State,
    t1: Tensor,
    direction: Tensor,
    smallest: Tensor,
    rtol: float,
    atol: float,
) -> tuple[_State, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """One attempt for all rows; rows that have arrived or failed make a step of size 0."""
    nodes, stage_weights, after_weights = _tableau(state.y.dtype, state.y.device)
    remaining = (t1 - state.t) * direction
    live = (remaining > 0) & (state.status == Status.SUCCESS)
    size = torch.where(live, torch.minimum(state.size, remaining), torch.zeros_like(remaining))
    signed = size * direction
    h = signed[:, None]
    slopes = [state.slope]
    y_new = state.y
    times = state.t + nodes * signed
    prepare = getattr(field, "stages", None)
    slope_at = (lambda stage, y: field(times[stage], y)) if prepare is None else prepare(times)
    for stage, weights in enumerate(stage_weights):
        y_new = torch.addcmul(state.y, h, _combine(weights, slopes)[0])
        slopes.append(slope_at(stage, y_new))
    combined = h * _combine(after_weights, slopes)
    with torch.no_grad():
        error = combined[0]
        ratio = _rms(error / (atol + rtol * torch.maximum(state.y.abs(), y_new.abs())))
        finite = torch.isfinite(ratio)
        accept = live & finite & (ratio <= 1)
        factor = (SAFETY * ratio.clamp(min=1e-10) ** -0.2).clamp(SHRINK, GROW)
        factor = torch.where(
            finite, torch.where(accept, factor, factor.clamp(max=1.0)), torch.full_like(factor, SHRINK)
        )
        t_new = torch.where(accept, torch.where(size >= remaining, t1, state.t + signed), state.t)
        proposed = torch.where(live, size * factor, state.size)
        stuck = live & ~accept & (proposed < smallest)
        status = torch.where(stuck & finite, Status.STEP_TOO_SMALL, state.status)
        status = torch.where(stuck & ~finite, Status.NOT_FINITE, status)
    taken = accept[:, None]
    dense = torch.cat([state.y[None], combined[1:]])
    after = _State(
        t_new,
        torch.where(taken, y_new, state.y),
        torch.where(taken, slopes[-1], state.slope),
        proposed,
        status,
        state.accepted + accept,
    )
    return after, (state.t, signed, t_new, dense)


def solve_dense(
    field: VectorField | StagedField,
    y0: Tensor,
    t0: Tensor,
    t1: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    max_steps: int = 4096,
    check_every: int | None = None,
) -> DenseSolution:
    """Integrate dy/dt = f(t, y) from t0 to t1, each row on its own, forward or backward.

    Args:
        field: `(B,)` times and `(B, D)` states to `(B, D)`; rows must not depend on one another. One that has `stages`
            prepares each step at once.
        y0: `(B, D)` float32 or float64.
        t0: `(B,)` start times.
        t1: `(B,)` end times; may lie before t0.
        rtol: Relative tolerance, > 0; the error of a step is the rms over D of error / (atol + rtol |y|).
        atol: Absolute tolerance, >= 0.
        max_steps: Attempts after which rows that are under way end with `Status.MAX_STEPS`.
        check_every: Steps between two questions to the device whether rows are under way: 1 on a CPU, 8 elsewhere.
    Returns:
        A `DenseSolution`; it never raises for a hard field, its `status` says how each row ended.
    Raises:
        ValueError: Tolerances are not positive.
    """
    if not (rtol > 0 and atol >= 0):
        raise ValueError(f"rtol should be > 0 and atol >= 0, but they are {rtol} and {atol}.")
    check_every = check_every or (1 if y0.device.type == "cpu" else 8)
    span = t1 - t0
    direction = torch.where(span < 0, -torch.ones_like(span), torch.ones_like(span))
    smallest = 4 * torch.finfo(y0.dtype).eps * torch.maximum(t0.abs(), t1.abs())
    slope = field(t0, y0)
    with torch.no_grad():
        size = _first_step(field, t0, y0, slope, span, rtol, atol)
    zeros = torch.zeros(len(y0), dtype=torch.int64, device=y0.device)
    state = _State(t0, y0, slope, size, zeros, zeros)
    records: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for attempt in range(max_steps):
        under_way = ((t1 - state.t) * direction > 0) & (state.status == Status.SUCCESS)
        if attempt % check_every == 0 and not bool(under_way.any()):
            break
        state, record = _step(field, state, t1, direction, smallest, rtol, atol)
        records.append(record)
    if not records:
        records.append((t0, torch.zeros_like(t0), t0, torch.cat([y0[None], torch.zeros_like(y0).expand(4, *y0.shape)])))
    unfinished = ((t1 - state.t) * direction > 0) & (state.status == Status.SUCCESS)
    status = torch.where(unfinished, Status.MAX_STEPS, state.status)
    starts, sizes, ends, coefficients = (torch.stack(parts) for parts in zip(*records, strict=True))
    nfe = 2 + EVALUATIONS_PER_STEP * len(records)
    return DenseSolution(starts, sizes, ends, coefficients, state.y, status, state.accepted, direction, nfe)
