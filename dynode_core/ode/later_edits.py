"""Edits that change over time: the path is corrected so that it passes what was asked for at later times.

A neural CDE reads observations that arrive after the start as a control X of the equation. Here the observations are
edited codes at chosen times; X leads from the edit at one time to the edit at the next, at rest at both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..types import EditedLatent


@dataclass(frozen=True)
class LaterEdit:
    """What the edit has become by a time of the clip."""

    latent: EditedLatent
    """Its difference from its own base code is what the edit adds at `time_s`."""
    time_s: float


@dataclass(frozen=True)
class EditTimeline:
    """Differences of codes at increasing times. J entries."""

    tau: Tensor
    """`(J,)` float64 normalised times."""
    differences: Tensor
    """`(J, L, D)` float32."""
    anchor: int
    """Entry at which the path is solved from."""

    def weights(self, tau: Tensor) -> Tensor:
        """`(N,)` times to `(N, J)` float32 shares of the entries: smoothsteps that sum to 1."""
        piece = (torch.bucketize(tau, self.tau, right=True) - 1).clamp(0, len(self.tau) - 2)
        low, high = self.tau[piece], self.tau[piece + 1]
        u = ((tau - low) / (high - low)).clamp(0, 1)
        rise = u * u * (3 - 2 * u)
        shares = torch.zeros(len(tau), len(self.tau), dtype=torch.float64)
        rows = torch.arange(len(tau))
        shares[rows, piece] += 1 - rise
        shares[rows, piece + 1] += rise
        return shares.float()


def timeline(first: Tensor, anchor: float, later: Sequence[tuple[float, Tensor]]) -> EditTimeline:
    """Join the edit at the anchor and later ones.

    Args:
        first: `(L, D)` difference at normalised time `anchor`.
        later: Normalised times and `(L, D)` differences, in any order.
    Raises:
        ValueError: Two edits at the same time.
    """
    entries = sorted([(anchor, first), *later], key=lambda entry: entry[0])
    tau = np.array([time for time, _ in entries])
    if (np.diff(tau) <= 0).any():
        raise ValueError(
            "Two edits are at the same time, so it is not clear which one counts. Give each later edit a time of its "
            "own, after the first frame and within the clip."
        )
    differences = torch.stack([difference for _, difference in entries])
    return EditTimeline(torch.from_numpy(tau), differences, int(np.searchsorted(tau, anchor)))
