"""What a user can choose when a trajectory is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .cuts import check_cuts
from .path import check_method
from .reference import REFERENCES

STRICT_JACOBIAN, LOOSE_JACOBIAN = 1e-2, 1e-8


@dataclass(frozen=True)
class TrajectorySettings:
    """Settings of `fit_trajectory`; the defaults suit any clip."""

    method: str = "dopri5"
    """Solver, one of `ode.METHODS`."""
    rtol: float = 1e-5
    atol: float = 1e-6
    """Tolerances of adaptive solvers, in units of the state (rms 1 over the clip)."""
    reference: str = "auto"
    """Path that the field is fitted to, one of `ode.REFERENCES`."""
    smoothing: float | None = None
    """Strength of the smoothing spline in units of the mean gap cubed, >= 0; None measures the jitter and chooses."""
    rank: int = 64
    """Axes of the subspace, at most; 1 to 512."""
    state_dependence: float = 0.0
    """0: an edit is carried along exactly; 1: motion depends on the state, and edits drift with it. In [0, 1]."""
    cuts: str | tuple[float, ...] = "auto"
    """Times of shot changes in seconds, "auto" for those seen in the pictures and in the codes, or "none"."""
    window_intervals: int = 64
    """Gaps between keyframes per window of the field; 8 to 256."""
    check_held_out: bool = True
    """Also fit every other keyframe and measure the others, beside linear interpolation."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.reference not in REFERENCES:
            raise ValueError(f"reference should be one of {', '.join(REFERENCES)}, but is {self.reference!r}.")
        check_cuts(self.cuts)
        bounds: tuple[tuple[str, float, float, float], ...] = (
            ("rtol", self.rtol, 1e-12, 1e-1),
            ("atol", self.atol, 0.0, 1e-1),
            ("smoothing", self.smoothing or 0.0, 0.0, 1e12),
            ("rank", self.rank, 1, 512),
            ("state_dependence", self.state_dependence, 0.0, 1.0),
            ("window_intervals", self.window_intervals, 8, 256),
        )
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise ValueError(f"{name} should be between {low:g} and {high:g}, but is {value:g}.")

    @property
    def jacobian_weight(self) -> float:
        """j of `closed_form`: 1e-2 at no state dependence, 1e-8 at full, logarithmic between."""
        low, high = math.log10(LOOSE_JACOBIAN), math.log10(STRICT_JACOBIAN)
        return float(10 ** (high + (low - high) * self.state_dependence))
