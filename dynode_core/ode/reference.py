"""The reference path r(tau) that the vector field is solved to follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .gaussian_process import GaussianProcessReference
from .jitter import choose_smoothing, estimate_jitter
from .spline import SplineAlgebra, SplineReference

SPARSE = 30
"""Observations below which jitter cannot be told from motion."""
NUGGET = 0.05
REFERENCES = ("auto", "smoothing spline", "gaussian process", "natural cubic")


class Reference(Protocol):
    """A smooth path through, or close to, the observed states."""

    def position(self, tau: np.ndarray) -> np.ndarray:
        """`(M,)` to `(M, r)` float64."""
        ...

    def velocity(self, tau: np.ndarray) -> np.ndarray:
        """`(M,)` to `(M, r)` float64, per unit of tau."""
        ...


@dataclass(frozen=True)
class ReferenceFit:
    """A reference and how it was chosen, for the report."""

    reference: Reference
    kind: str
    smoothing: float
    """lam in units of the mean gap cubed."""
    jitter: float
    """Estimated standard deviation of the jitter per axis, in units of y; 0 where unknown."""
    correlation: float
    """Of the jitter from one observation to the next."""


class _Constant:
    """One observation: nothing moves."""

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def position(self, tau: np.ndarray) -> np.ndarray:
        return np.repeat(self._value[None], len(tau), axis=0)

    def velocity(self, tau: np.ndarray) -> np.ndarray:
        return np.zeros((len(tau), len(self._value)))


def _gaussian_process(times: np.ndarray, states: np.ndarray) -> ReferenceFit:
    gaps = np.diff(times)
    # In a gap much longer than the length the posterior would fall back to the mean face.
    length = max(float(gaps.mean()), float(gaps.max()) / 2)
    reference = GaussianProcessReference(times, states, length=length, nugget=NUGGET)
    return ReferenceFit(reference, "gaussian process", 0.0, 0.0, 0.0)


def fit_reference(
    times: np.ndarray,
    states: np.ndarray,
    *,
    kind: str = "auto",
    smoothing: float | None = None,
    samples: np.ndarray | None = None,
    seed: int = 0,
) -> ReferenceFit:
    """Choose and fit the reference for `(K, r)` states at `(K,)` increasing times.

    Args:
        kind: One of `REFERENCES`. "auto": a smoothing spline where jitter is identified, a Gaussian process where
            observations are few, the natural cubic spline otherwise.
        smoothing: lam in units of the mean gap cubed, >= 0; None chooses it.
        samples: `(K, C)` entries of the codes themselves: far more of them than axes, so that the correlation of the
            jitter shows more clearly. `states` if None.
    """
    if len(times) == 1:
        return ReferenceFit(_Constant(states[0]), "constant", 0.0, 0.0, 0.0)
    if len(times) < 4 or kind == "natural cubic":
        return ReferenceFit(SplineReference(times, states), "natural cubic", 0.0, 0.0, 0.0)
    if kind == "gaussian process" or (kind == "auto" and smoothing is None and len(times) < SPARSE):
        return _gaussian_process(times, states)
    unit = float(np.mean(np.diff(times))) ** 3
    deviation, correlation = 0.0, 0.0
    if smoothing is None:
        jitter = estimate_jitter(times, states, samples) if len(times) >= 8 else None
        identified = jitter is not None and jitter.identified
        lam = choose_smoothing(times, states, jitter, seed=seed) if jitter is not None and identified else 0.0
        if jitter is not None and identified:
            deviation, correlation = float(np.sqrt(jitter.variance / states.shape[1])), jitter.correlation
    else:
        lam = smoothing * unit
    fitted = SplineAlgebra.of(times).smooth(states, lam)
    name = "smoothing spline" if lam > 0 else "natural cubic"
    return ReferenceFit(SplineReference(times, fitted), name, lam / unit, deviation, correlation)
