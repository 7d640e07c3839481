"""Gaussian-process reference for sparse clips: Matern-5/2, constant trend.

Two dozen keyframes say little about jitter, and a cubic spline swings between them; this posterior mean stays close to
the chord, unless the keyframes themselves show that the motion is resolved. Kernel: Rasmussen & Williams, Gaussian
Processes for Machine Learning, equation 4.17; restricted likelihood: Patterson & Thompson, Biometrika 58, 1971.
"""

from __future__ import annotations

import numpy as np

REACH = 14.0
"""In lengths: beyond it the kernel is below 1e-11 and left out, which makes the algebra banded."""


LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
NUGGETS = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
CLEAR_NUGGET = 0.01
"""Largest share of noise with which the motion between keyframes counts as resolved. With more, a path that is sampled
too coarsely and one that trembles look the same, and a long correlation would smooth true motion away."""


def _kernel(distance: np.ndarray) -> np.ndarray:
    """Matern-5/2 of distances in units of the length."""
    d = np.sqrt(5.0) * np.abs(distance)
    return (1 + d + d * d / 3) * np.exp(-d)


def _kernel_slope(difference: np.ndarray) -> np.ndarray:
    """Derivative of the kernel by its first argument, differences in units of the length."""
    d = np.sqrt(5.0) * np.abs(difference)
    return -5 / 3 * difference * (1 + d) * np.exp(-d)


def _log_likelihood(times: np.ndarray, values: np.ndarray, length: float, nugget: float) -> float:
    """Restricted log likelihood of `(K, r)` values per axis, process variance profiled out, up to a constant."""
    from scipy.linalg import cho_factor, cho_solve

    count = len(times)
    covariance = _kernel((times[:, None] - times) / length) + nugget * np.eye(count)
    factor = cho_factor(covariance, lower=True)
    ones = np.ones((count, 1))
    solved = cho_solve(factor, np.concatenate([ones, values], axis=1))
    weight = solved[:, 0].sum()
    centred = values - solved[:, 1:].sum(0) / weight
    misfit = float((centred * cho_solve(factor, centred)).sum()) / (values.shape[1] * (count - 1))
    log_determinant = 2 * np.log(np.diag(factor[0])).sum() + np.log(weight)
    return float(-0.5 * log_determinant - 0.5 * (count - 1) * np.log(max(misfit, 1e-300)))


def likely_process(times: np.ndarray, values: np.ndarray, unit: float) -> tuple[float, float] | None:
    """Length and nugget that explain `(K, r)` values at `(K,)` times best; None where the motion is not resolved.

    Args:
        unit: What `LENGTHS` are multiples of, in units of the times.
    """
    found = max(
        (_log_likelihood(times, values, length * unit, nugget), length * unit, nugget)
        for length in LENGTHS
        for nugget in NUGGETS
    )
    return (found[1], found[2]) if found[1] > unit and found[2] <= CLEAR_NUGGET else None


class GaussianProcessReference:
    """Posterior mean r(tau) of a Matern-5/2 process and its derivative."""

    def __init__(self, times: np.ndarray, values: np.ndarray, *, length: float, nugget: float) -> None:
        """Condition on `(K, r)` values at `(K,)` times.

        Args:
            length: Correlation length, in units of the times.
            nugget: Variance of the observation noise, as a part of the process variance.
        """
        from scipy.linalg import solveh_banded

        self._times, self._length = times, length
        reach = np.searchsorted(times, times + REACH * length, side="right") - np.arange(len(times)) - 1
        width = int(reach.max())
        bands = np.zeros((width + 1, len(times)))  # lower form: bands[i, j] = K[i + j, j]
        for offset in range(width + 1):
            bands[offset, : len(times) - offset] = _kernel((times[offset:] - times[: len(times) - offset]) / length)
        bands[0] += nugget
        ones = np.ones((len(times), 1))
        solved = solveh_banded(bands, np.concatenate([ones, values], axis=1), lower=True)
        self._trend = (ones * solved[:, 1:]).sum(0) / solved[:, 0].sum()
        self._weights = solved[:, 1:] - solved[:, :1] * self._trend

    def _near(self, tau: np.ndarray) -> slice:
        first = np.searchsorted(self._times, tau.min() - REACH * self._length)
        last = np.searchsorted(self._times, tau.max() + REACH * self._length, side="right")
        return slice(int(first), int(last))

    def position(self, tau: np.ndarray) -> np.ndarray:
        """`(M,)` to `(M, r)` float64."""
        near = self._near(tau)
        return self._trend + _kernel((tau[:, None] - self._times[near]) / self._length) @ self._weights[near]

    def velocity(self, tau: np.ndarray) -> np.ndarray:
        """`(M,)` to `(M, r)` float64, per unit of tau."""
        near = self._near(tau)
        slopes = _kernel_slope((tau[:, None] - self._times[near]) / self._length)
        return slopes @ self._weights[near] / self._length
