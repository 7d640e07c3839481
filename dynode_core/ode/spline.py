"""Natural cubic smoothing splines through banded algebra: O(K) for K observations.

Convention: the spline minimises sum |y_i - r(t_i)|^2 + lam * integral |r''|^2; Q `(K, K-2)` maps values to jumps of
slope and R `(K-2, K-2)` is the Gram matrix of the hat functions (Green & Silverman 1994, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SplineAlgebra:
    """The banded matrices of one set of knots."""

    gaps: np.ndarray
    """`(K-1,)` float64."""

    @classmethod
    def of(cls, times: np.ndarray) -> SplineAlgebra:
        """For `(K,)` increasing times, K >= 3."""
        return cls(np.diff(times))

    def slope_jumps(self, values: np.ndarray) -> np.ndarray:
        """Q^T v: `(K, C)` values to `(K-2, C)`."""
        return np.diff(np.diff(values, axis=0) / self.gaps[:, None], axis=0)

    def spread_jumps(self, jumps: np.ndarray) -> np.ndarray:
        """Q g: `(K-2, C)` to `(K, C)`."""
        padded = np.pad(jumps, ((1, 1), (0, 0)))
        steps = np.diff(padded, axis=0) / self.gaps[:, None]
        return np.diff(np.pad(steps, ((1, 1), (0, 0))), axis=0)

    def system(self, lam: float) -> np.ndarray:
        """R + lam Q^T Q as the `(3, K-2)` upper bands that `scipy.linalg.solveh_banded` reads."""
        inverse = 1 / self.gaps
        left, right = inverse[:-1], inverse[1:]
        middle = -left - right
        bands = np.zeros((3, len(self.gaps) - 1))
        bands[2] = (self.gaps[:-1] + self.gaps[1:]) / 3 + lam * (left**2 + middle**2 + right**2)
        bands[1, 1:] = self.gaps[1:-1] / 6 + lam * (middle[:-1] * left[1:] + right[:-1] * middle[1:])
        bands[0, 2:] = lam * right[:-2] * left[2:]
        return bands

    def smooth(self, values: np.ndarray, lam: float) -> np.ndarray:
        """S_lam v: `(K, C)` values to the `(K, C)` values of the smoothing spline at the knots."""
        from scipy.linalg import solveh_banded

        if lam == 0 or len(values) < 3:
            return values
        return values - lam * self.spread_jumps(solveh_banded(self.system(lam), self.slope_jumps(values)))


class SplineReference:
    """A natural cubic spline r(tau) with its derivative."""

    def __init__(self, times: np.ndarray, values: np.ndarray) -> None:
        """Interpolate `(K, r)` values at `(K,)` times, K >= 2."""
        from scipy.interpolate import CubicSpline

        self._position = CubicSpline(times, values, bc_type="natural")
        self._velocity = self._position.derivative()

    def position(self, tau: np.ndarray) -> np.ndarray:
        """`(M,)` to `(M, r)` float64."""
        return self._position(tau)

    def velocity(self, tau: np.ndarray) -> np.ndarray:
        """`(M,)` to `(M, r)` float64, per unit of tau."""
        return self._velocity(tau)
