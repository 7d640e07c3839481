"""How much to smooth: a Cp criterion for jitter that is correlated from frame to frame (ours).

Codes inverted one by one jitter around the motion, and neighbouring errors resemble one another. Cross-validation takes
such jitter for motion. Here its variance s2 and its lag-one correlation rho are read off differences of the codes that
motion hardly touches, and lam minimises RSS(lam) + 2 s2 tr(S_lam C_rho) (Mallows' Cp with an AR(1) covariance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .spline import SplineAlgebra

CORRELATION_BOUNDS = (-0.5, 0.95)
_GRID = np.logspace(-2.0, 4.5, 27)
_EXACT_TRACE, _PROBES = 256, 24


@dataclass(frozen=True)
class Jitter:
    """AR(1) jitter of observed states."""

    variance: float
    """Summed over the axes."""
    correlation: float
    """Between neighbouring observations."""

    @property
    def identified(self) -> bool:
        """False where the correlation ran into its bounds: then motion, not jitter, filled the differences."""
        low, high = CORRELATION_BOUNDS
        return low < self.correlation < high and self.variance > 0


def _annihilators(times: np.ndarray, order: int) -> np.ndarray:
    """`(K - order, order + 1)` unit weights that send polynomials of degree < `order` at the times to 0."""
    windows = np.lib.stride_tricks.sliding_window_view(times, order + 1)
    scaled = (windows - windows[:, :1]) / (windows[:, -1:] - windows[:, :1])
    gaps = scaled[:, :, None] - scaled[:, None, :]
    gaps[:, np.arange(order + 1), np.arange(order + 1)] = 1.0
    weights = 1 / gaps.prod(axis=2)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _difference_energy(weights: np.ndarray, states: np.ndarray) -> float:
    """Mean over windows of the squared norm of the weighted sums of `(K, r)` states."""
    width = weights.shape[1]
    sums = sum(weights[:, i, None] * states[i : len(states) - width + 1 + i] for i in range(width))
    return float(np.mean(np.square(sums).sum(axis=1)))


def estimate_jitter(times: np.ndarray, states: np.ndarray, samples: np.ndarray | None = None) -> Jitter:
    """Variance and correlation of the jitter of `(K, r)` states at `(K,)` times, K >= 8.

    The ratio of fifth- to fourth-difference energy depends on the correlation alone where motion is smooth. It is
    measured on `(K, C)` samples (the states if None), the variance on the states.
    """
    samples = states if samples is None else samples
    fourth, fifth = _annihilators(times, 4), _annihilators(times, 5)
    energies = _difference_energy(fourth, samples), _difference_energy(fifth, samples)
    variance = _difference_energy(fourth, states)
    grid = np.linspace(*CORRELATION_BOUNDS, 291)

    def expected(weights: np.ndarray) -> np.ndarray:
        moments = np.mean(weights[:, :, None] * weights[:, None, :], axis=0)
        lags = np.abs(np.subtract.outer(np.arange(len(moments)), np.arange(len(moments))))
        return np.array([np.sum(moments * rho**lags) for rho in grid])

    if energies[0] <= 0:
        return Jitter(0.0, 0.0)
    expected_fourth, expected_fifth = expected(fourth), expected(fifth)
    best = int(np.argmin(np.abs(expected_fifth / expected_fourth - energies[1] / energies[0])))
    correlation = CORRELATION_BOUNDS[0 if best == 0 else 1] if best in (0, len(grid) - 1) else float(grid[best])
    return Jitter(variance / expected_fourth[best], correlation)


def _correlate(probes: np.ndarray, rho: float) -> np.ndarray:
    """C_rho p for `(K, m)` probes, C_rho[i, j] = rho^|i - j|, by one recursion in each direction."""
    from scipy.signal import lfilter

    forward = lfilter([1.0], [1.0, -rho], probes, axis=0)
    backward = lfilter([1.0], [1.0, -rho], probes[::-1], axis=0)[::-1]
    return forward + backward - probes


def choose_smoothing(times: np.ndarray, states: np.ndarray, jitter: Jitter, *, seed: int = 0) -> float:
    """The lam >= 0 (units of time cubed) that minimises Cp for `(K, r)` states.

    The trace is exact up to 256 observations and estimated with seeded +-1 probes (Hutchinson) beyond.
    """
    algebra = SplineAlgebra.of(times)
    count = len(times)
    if count <= _EXACT_TRACE:
        probes, share = np.eye(count), 1.0
    else:
        probes, share = np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, _PROBES)), 1.0 / _PROBES
    correlated = _correlate(probes, jitter.correlation)
    stacked = np.concatenate([states, correlated], axis=1)
    unit = float(np.mean(np.diff(times))) ** 3
    scores = []
    for lam in _GRID * unit:
        smoothed = algebra.smooth(stacked, lam)
        residual = float(np.square(states - smoothed[:, : states.shape[1]]).sum())
        trace = share * float((probes * smoothed[:, states.shape[1] :]).sum())
        scores.append(residual + 2 * jitter.variance * trace)
    unsmoothed = 2 * jitter.variance * share * float((probes * correlated).sum())
    best = int(np.argmin(scores))
    return float(_GRID[best] * unit) if scores[best] < unsmoothed else 0.0
