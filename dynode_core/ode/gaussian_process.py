"""Gaussian-process reference for sparse clips: Matern-5/2, constant trend.

Two dozen keyframes say little about jitter, and a cubic spline swings between them; this posterior mean stays close to
the chord. Kernel: Rasmussen & Williams, Gaussian Processes for Machine Learning, equation 4.17.
"""

from __future__ import annotations

import numpy as np

REACH = 14.0
"""In lengths: beyond it the kernel is below 1e-11 and left out, which makes the algebra banded."""


def _kernel(distance: np.ndarray) -> np.ndarray:
    """Matern-5/2 of distances in units of the length."""
    d = np.sqrt(5.0) * np.abs(distance)
    return (1 + d + d * d / 3) * np.exp(-d)


def _kernel_slope(difference: np.ndarray) -> np.ndarray:
    """Derivative of the kernel by its first argument, differences in units of the length."""
    d = np.sqrt(5.0) * np.abs(difference)
    return -5 / 3 * difference * (1 + d) * np.exp(-d)


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
