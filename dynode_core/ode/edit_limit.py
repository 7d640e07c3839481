"""Edits that stop where the clip's own motion has already gone (ours).

An edit is carried as it is: a smile of strength 3 that is put on a neutral face is added to a grin as well, and the sum
lies beyond every face that the generator knows. So what an edit adds is scaled down where the clip itself has moved
along it. Measured on a man who grins by 2.8 of the direction "smile": +3 on top bends his eyes and folds his cheeks,
+1 does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_KNEE = 0.25
"""Over this share of the edit the limit sets in, if it leaves so much room."""


@dataclass(frozen=True)
class EditLimit:
    """How far along an edit a code may lie, seen from the code that was edited."""

    reach: float
    """At most this many times the further of the edit and the clip's own motion along it. At least 1."""
    start: Tensor
    """`(L, D)` the code before the edit."""
    observed: Tensor
    """`(K, L, D)` codes of the clip."""

    def applied(self, base: Tensor, change: Tensor) -> Tensor:
        """What an edit may add: `change`, scaled by a factor in [0, 1] for each time.

        Where the clip stays as it was at the start, or moves otherwise than the edit does, the factor is exactly 1.

        Args:
            base: `(n, L, D)` codes without the edit.
            change: `(n, L, D)` what the edit adds to them.
        """
        rows = change.flatten(1)
        length = rows.square().sum(dim=1).clamp_min(1e-12)
        own = ((base - self.start).flatten(1) * rows).sum(dim=1) / length
        furthest = ((self.observed.flatten(1) @ rows.T).amax(dim=0) - rows @ self.start.flatten()) / length
        room = self.reach * furthest.clamp_min(1.0) - own
        return change * _at_most_one(room, min(_KNEE, self.reach - 1))[:, None, None]


def _at_most_one(room: Tensor, knee: float) -> Tensor:
    """min(1, room) with a corner rounded from 1 - knee to 1 + knee, and never below 0."""
    corner = (knee - (room - 1).abs()).clamp_min(0).square() / (4 * knee) if knee else 0.0
    return (room.clamp_max(1.0) - corner).clamp_min(0)
