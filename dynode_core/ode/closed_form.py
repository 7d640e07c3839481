"""Solving the heads of a `WindowedField` so that its solution follows a reference path: one ridge solve per window.

Rows of the least-squares problem, all linear in the heads (formulation: ours):
- velocity at 3 Gauss nodes per interval: f(r(tau), tau) = r'(tau);
- drift: the running integral of f along r reaches r at every knot, weight 10 x intervals;
- Jacobian: (phi(y + eps u) - phi(y)) / eps times the head is 0 for random unit u, weight j (speed L)^2 r. The larger j,
  the less an edit of the state changes the motion, so the more exactly the edit is carried along.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .devices import solving_device
from .reference import SPARSE, Reference
from .threads import one_thread
from .vector_field import FREQUENCY_SHARE, HIDDEN, WindowedField

RIDGE = 1e-8
DRIFT_WEIGHT = 10.0
PROBE_SIZES = (0.01, 0.3, 1.0)
SPARSE_SUBDIVISION = 4
_TOLERATED_EXCESS = 0.3
GAUSS_NODES, GAUSS_WEIGHTS = (
    0.5 * (a + b) for a, b in zip(np.polynomial.legendre.leggauss(3), (1.0, 0.0), strict=True)
)


@dataclass(frozen=True)
class Segment:
    """A stretch of the clip without a cut."""

    low: float
    """tau where the stretch begins: its first knot, or the cut before it."""
    high: float
    """tau where it ends: its last knot, or the cut after it."""
    knots: np.ndarray
    """`(n,)` tau of its observations, within [low, high]."""
    reference: Reference
    subdivision: int = 1
    """Quadrature intervals per gap that its reference wants."""
    gaps_per_window: int | None = None
    """Gaps that its windows hold at most; None leaves it to the fit."""


@dataclass(frozen=True)
class _Window:
    """One window and the knots of its quadrature; no knots where the path stands still."""

    low: float
    high: float
    grid: np.ndarray
    reference: Reference


def _subdivide(knots: np.ndarray, least: int, intervals: int) -> np.ndarray:
    """Knots with further ones between: at least `least` intervals per gap, none much longer than 1 / `intervals`.

    Quadrature must resolve the fastest waves in long gaps, too; else the drift rows would hold on paper only.
    """
    gaps = np.diff(knots)
    parts = np.ceil(gaps * intervals / (knots[-1] - knots[0]) - _TOLERATED_EXCESS).astype(int).clip(min=least)
    pieces = [low + gap * np.arange(count) / count for low, gap, count in zip(knots[:-1], gaps, parts, strict=True)]
    return np.append(np.concatenate(pieces), knots[-1])


def _lay_out(segments: Sequence[Segment], per_window: int, subdivision: int) -> tuple[list[_Window], int]:
    """Cut segments into windows; what lies between a cut and the nearest knot becomes a window at rest.

    All windows share one basis. A segment that wants many intervals per gap has shorter windows, so that it makes
    neither the basis nor the windows of the others larger.

    Returns:
        The windows, and the nominal number of intervals in one, which sets the number of frequencies.
    """
    sparse = [len(s.knots) - 1 < SPARSE for s in segments]
    base = [
        max(SPARSE_SUBDIVISION if few else 1, s.subdivision * subdivision)
        for s, few in zip(segments, sparse, strict=True)
    ]
    gaps = [max(1, len(s.knots) - 1) for s in segments]
    most = [min(per_window, s.gaps_per_window or per_window) for s in segments]
    counts = [max(1, round(gap / held)) for gap, held in zip(gaps, most, strict=True)]
    finest = max(math.ceil(gap / count) * parts for gap, count, parts in zip(gaps, counts, base, strict=True))
    windows = []
    for segment, count, few, least in zip(segments, counts, sparse, base, strict=True):
        knots, empty = segment.knots, np.empty(0)
        if knots[0] > segment.low:
            windows.append(_Window(segment.low, float(knots[0]), empty, segment.reference))
        bounds = np.round(np.linspace(0, len(knots) - 1, count + 1)).astype(int)
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            if last == first:
                continue
            inside = knots[first : last + 1]
            full = few or segment.gaps_per_window is not None  # else the window holds about as many intervals anyway
            grid = _subdivide(inside, least, finest if full else least * (last - first))
            windows.append(_Window(float(inside[0]), float(inside[-1]), grid, segment.reference))
        if knots[-1] < segment.high:
            windows.append(_Window(float(knots[-1]), segment.high, empty, segment.reference))
    return windows, finest


def _rms_speed(windows: Sequence[_Window]) -> float:
    """Rms of dy/dtau per axis over the clip, weighted by time."""
    total, duration = 0.0, 0.0
    for window in windows:
        if len(window.grid):
            tau = np.linspace(window.low, window.high, 4 * len(window.grid))
            total += float(np.mean(window.reference.velocity(tau) ** 2)) * (window.high - window.low)
        duration += window.high - window.low
    return max(math.sqrt(total / duration), 1e-12)


def _jacobian_gram(field: WindowedField, seen: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """`(64, 64)` mean outer product of the directional derivatives of phi along random unit directions."""
    here = field.state_features(seen, y)
    gram = torch.zeros(HIDDEN, HIDDEN, dtype=y.dtype, device=y.device)
    for size in PROBE_SIZES:
        directions = torch.randn(y.shape, generator=generator, dtype=y.dtype).to(y.device)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        change = (field.state_features(seen, y + size * directions) - here) / size
        gram += change.T @ change
    return gram / len(y)


def _solve_head(field: WindowedField, window: _Window, jacobian_weight: float, generator: torch.Generator) -> Tensor:
    """`(F, r)` head of one window."""
    device, length = field.heads.device, window.high - window.low
    gaps = np.diff(window.grid)
    nodes = (window.grid[:-1, None] + gaps[:, None] * GAUSS_NODES).ravel()
    as_tensor = lambda values: torch.as_tensor(values, dtype=torch.float64, device=device)  # noqa: E731
    y = as_tensor(window.reference.position(nodes))
    velocity = as_tensor(window.reference.velocity(nodes)) / field.speed
    of_time, seen = field.time_features(as_tensor(2 * (nodes - window.low) / length - 1))
    features = torch.cat([of_time, field.state_features(seen, y)], dim=-1)
    weights = as_tensor((gaps[:, None] * GAUSS_WEIGHTS).ravel() / length)
    running = (features * weights[:, None]).reshape(len(gaps), len(GAUSS_NODES), -1).sum(1).cumsum(0)
    path = as_tensor(window.reference.position(window.grid))
    reached = (path[1:] - path[0]) / (field.speed * length)
    gram = features.T @ features / len(nodes) + DRIFT_WEIGHT * running.T @ running
    right = features.T @ velocity / len(nodes) + DRIFT_WEIGHT * running.T @ reached
    weight = jacobian_weight * (field.speed * length) ** 2 * field.rank
    gram[-HIDDEN:, -HIDDEN:] += weight * _jacobian_gram(field, seen, y, generator)
    unit = gram.diagonal().clamp(min=1e-300).rsqrt()
    scaled = gram * unit[:, None] * unit[None, :]
    scaled.diagonal().add_(RIDGE)
    return torch.linalg.solve(scaled, right * unit[:, None]) * unit[:, None]


def fit_field(
    segments: Sequence[Segment],
    rank: int,
    *,
    jacobian_weight: float = 1e-2,
    per_window: int = 64,
    subdivision: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> WindowedField:
    """Solve all heads for the reference paths of the segments, which together cover tau from 0 to 1.

    Args:
        jacobian_weight: j above; from 1e-4 up edits are carried exactly, below 1e-6 the motion depends on the state.
        per_window: Observation gaps per window.
        subdivision: Times as many quadrature intervals per gap as each segment wants; the basis grows with it. Sparse
            segments always have 4.
        device: Where the float64 solves run, and where the field lies; the CPU in place of one without float64.
    """
    windows, finest = _lay_out(segments, per_window, subdivision)
    edges = torch.tensor([window.low for window in windows] + [windows[-1].high], dtype=torch.float64)
    field = WindowedField(edges, rank, max(1, math.ceil(FREQUENCY_SHARE * finest)), _rms_speed(windows), seed=seed)
    field = field.to(solving_device(device))
    generator = torch.Generator().manual_seed(seed)
    for k, window in enumerate(windows):
        at_rest = len(window.grid) == 0
        inside = np.clip([window.low, window.high], *_knot_span(segments, window)) if at_rest else window.grid[[0, -1]]
        ends = torch.from_numpy(window.reference.position(np.asarray(inside)))
        field.starts[k], field.ends[k] = ends[0], ends[1]
        if at_rest:
            continue
        with one_thread(field.heads.device):
            field.heads[k] = _solve_head(field, window, jacobian_weight, generator)
    return field


def _knot_span(segments: Sequence[Segment], window: _Window) -> tuple[float, float]:
    """First and last knot of the segment that a window belongs to."""
    segment = next(s for s in segments if s.low <= window.low and window.high <= s.high)
    return float(segment.knots[0]), float(segment.knots[-1])
