"""The reference path r(tau) that the vector field is solved to follow."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .gaussian_process import GaussianProcessReference, likely_process
from .jitter import choose_smoothing, estimate_jitter
from .learned import FEWEST, PER_GAP, Effort, fit_learned
from .monotone import MonotoneReference
from .spline import SplineAlgebra, SplineReference

SPARSE = 30
"""Observations below which jitter cannot be told from motion."""
NUGGET = 0.05
"""Of the process where the keyframes do not tell; its length is then one gap."""
UNEVEN = 2.5
"""Longest gap over the shortest from which keyframes count as chosen by motion; frames that were dropped give 2."""
_FOLDS = 16
_CLEARLY = 0.97
"""Share of the other error from which a monotone path counts as better."""
MONOTONE_SUBDIVISION = 16
"""With a window for each gap: drift 1e-7 on three clips, 3e-7 with 120 gaps."""
LEARNED = "learned"
REFERENCES = ("auto", "smoothing spline", "gaussian process", "natural cubic", "monotone cubic", LEARNED)


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
    cross_validated: tuple[float, float] | None = None
    """Where a learned path was asked for: its error at left-out keyframes and that of the plain one, relative to the
    motion."""

    @property
    def gaps_per_window(self) -> int | None:
        """Gaps that a window of the field should hold at most; None leaves it to the fit.

        A monotone path bends sharply at its knots: each gap is a window of its own, in which it is a polynomial.
        """
        return 1 if isinstance(self.reference, MonotoneReference) else None

    @property
    def subdivision(self) -> int:
        """Quadrature intervals per gap that resolve it."""
        if self.kind == LEARNED:
            return PER_GAP
        return MONOTONE_SUBDIVISION if isinstance(self.reference, MonotoneReference) else 1


class _Constant:
    """One observation: nothing moves."""

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def position(self, tau: np.ndarray) -> np.ndarray:
        return np.repeat(self._value[None], len(tau), axis=0)

    def velocity(self, tau: np.ndarray) -> np.ndarray:
        return np.zeros((len(tau), len(self._value)))


def _gaussian_process(times: np.ndarray, states: np.ndarray) -> tuple[float, float]:
    """Length and nugget."""
    gaps = np.diff(times)
    # In a gap much longer than the length the posterior would fall back to the mean face.
    unit = max(float(gaps.mean()), float(gaps.max()) / 2)
    likely = likely_process(times, states, unit) if len(times) < SPARSE else None
    return likely or (unit, NUGGET)


def _left_out_error(fit: Callable[[np.ndarray, np.ndarray], Reference], times: np.ndarray, states: np.ndarray) -> float:
    """Rms error at the inner observations of paths through the others: one in `_FOLDS` is left out at a time."""
    inner, folds = np.arange(1, len(times) - 1), min(_FOLDS, len(times) - 2)
    errors = np.empty((len(inner), states.shape[1]))
    for fold in range(folds):
        out = inner[fold::folds]
        kept = np.setdiff1d(np.arange(len(times)), out)
        errors[out - 1] = fit(times[kept], states[kept]).position(times[out]) - states[out]
    return float(np.sqrt(np.mean(np.square(errors))))


def _calmer(
    fit: Callable[[np.ndarray, np.ndarray], Reference], kind: str, times: np.ndarray, states: np.ndarray
) -> ReferenceFit:
    """The path that `fit` gives, or a monotone one where that predicts left-out observations clearly better."""
    monotone = _left_out_error(MonotoneReference, times, states)
    if monotone < _CLEARLY * _left_out_error(fit, times, states):
        return ReferenceFit(MonotoneReference(times, states), "monotone cubic", 0.0, 0.0, 0.0)
    return ReferenceFit(fit(times, states), kind, 0.0, 0.0, 0.0)


def _sparse(times: np.ndarray, states: np.ndarray, *, process_only: bool) -> ReferenceFit:
    length, nugget = _gaussian_process(times, states)
    process = functools.partial(GaussianProcessReference, length=length, nugget=nugget)
    if process_only:
        return ReferenceFit(process(times, states), "gaussian process", 0.0, 0.0, 0.0)
    return _calmer(process, "gaussian process", times, states)


def fit_reference(
    times: np.ndarray,
    states: np.ndarray,
    *,
    kind: str = "auto",
    smoothing: float | None = None,
    samples: np.ndarray | None = None,
    seed: int = 0,
    effort: Effort | None = None,
) -> ReferenceFit:
    """Choose and fit the reference for `(K, r)` states at `(K,)` increasing times.

    Args:
        kind: One of `REFERENCES`. "auto": a smoothing spline where jitter is identified; where observations are few,
            a Gaussian process; else the natural cubic spline. In their place a monotone cubic where it predicts
            left-out observations clearly better, which is not asked of a smoothing spline over even gaps.
        smoothing: lam in units of the mean gap cubed, >= 0; None chooses it.
        samples: `(K, C)` entries of the codes themselves: far more of them than axes, so that the correlation of the
            jitter shows more clearly. `states` if None.
        effort: Of the trainings for "learned", which gives what "auto" gives unless cross-validation prefers the
            learned path, and for fewer than `learned.FEWEST` observations.
    """
    if kind == LEARNED:
        return _learned(times, states, smoothing=smoothing, samples=samples, seed=seed, effort=effort)
    if len(times) == 1:
        return ReferenceFit(_Constant(states[0]), "constant", 0.0, 0.0, 0.0)
    if len(times) < 4 or kind == "natural cubic":
        return ReferenceFit(SplineReference(times, states), "natural cubic", 0.0, 0.0, 0.0)
    if kind == "monotone cubic":
        return ReferenceFit(MonotoneReference(times, states), kind, 0.0, 0.0, 0.0)
    if kind == "gaussian process" or (kind == "auto" and smoothing is None and len(times) < SPARSE):
        return _sparse(times, states, process_only=kind == "gaussian process")
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

    def smooth(times: np.ndarray, states: np.ndarray) -> Reference:
        return SplineReference(times, SplineAlgebra.of(times).smooth(states, lam))

    name = "smoothing spline" if lam > 0 else "natural cubic"
    gaps = np.diff(times)
    if kind == "auto" and smoothing is None and (lam <= 0 or gaps.max() > UNEVEN * gaps.min()):
        found = _calmer(smooth, name, times, states)
        if found.kind != name:
            return found
    return ReferenceFit(smooth(times, states), name, lam / unit, deviation, correlation)


def _learned(
    times: np.ndarray,
    states: np.ndarray,
    *,
    smoothing: float | None,
    samples: np.ndarray | None,
    seed: int,
    effort: Effort | None,
) -> ReferenceFit:
    """The learned path where it predicts left-out observations clearly better, else the plain one."""
    plain = fit_reference(times, states, smoothing=smoothing, samples=samples, seed=seed)
    if len(times) < FEWEST:
        return plain

    def plain_fit(at: np.ndarray, values: np.ndarray) -> Reference:
        return fit_reference(at, values, smoothing=smoothing, seed=seed).reference

    found = fit_learned(times, states, plain_fit, seed=seed, effort=effort)
    errors = (found.learned_error, found.plain_error)
    if not found.is_better:
        return dataclasses.replace(plain, cross_validated=errors)
    return ReferenceFit(found.reference, LEARNED, plain.smoothing, plain.jitter, plain.correlation, errors)
