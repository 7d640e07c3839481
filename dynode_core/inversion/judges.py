"""The networks that say how far a reconstruction is off."""

from __future__ import annotations

from dataclasses import dataclass

from .identity_loss import IdentityNetwork
from .perceptual import PerceptualDistance


@dataclass(frozen=True)
class Judges:
    """Each on the generator's device; None leaves it out."""

    perceptual: PerceptualDistance | None
    identity: IdentityNetwork | None

    @property
    def names(self) -> str:
        """For cache keys."""
        return ",".join("" if judge is None else judge.name for judge in (self.perceptual, self.identity))
