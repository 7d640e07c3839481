"""What every solver hands back: how it ended and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor


class Status(IntEnum):
    """How the integration of one row ended."""

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_TOO_SMALL = 2
    NOT_FINITE = 3

    @property
    def label(self) -> str:
        """Lower-case name for reports, e.g. "max steps"."""
        return self.name.lower().replace("_", " ")


REMEDIES = {
    Status.MAX_STEPS: "The vector field is too stiff for an explicit method at this tolerance: use a larger rtol, a "
    "smoother field (more smoothing, less state dependence), or allow more steps.",
    Status.STEP_TOO_SMALL: "The step fell below what the number format resolves: the field jumps, or the tolerance is "
    "finer than float32 allows. Use a larger rtol, a smoother field, or float64.",
    Status.NOT_FINITE: "The vector field returned NaN or infinity: the solution blows up in finite time. Start nearer "
    "to the observed codes, or fit again with less state dependence.",
}


@dataclass(frozen=True)
class Solution:
    """States at the asked times with the cost of the solve. B rows, N times, D dimensions."""

    y: Tensor
    """`(B, N, D)`, the dtype of y0."""
    nfe: int
    """Evaluations of the vector field that had to wait for one another (a batch counts once)."""
    status: Status
    num_steps: int
    """Step attempts one after another, the rejected ones included."""
    num_accepted: int
    """Accepted steps over all rows."""
    sweeps: int = 1
    """Passes over all windows; 0 where windows were solved one after another."""

    def raise_for_status(self, method: str) -> None:
        """Raise RuntimeError with a remedy unless the solve succeeded."""
        if self.status is not Status.SUCCESS:
            raise RuntimeError(
                f"The solver {method!r} stopped with status '{self.status.label}' after {self.num_steps} steps. "
                + REMEDIES[self.status]
            )
