"""How well codes can be edited: a probe edit should change what it names, and nothing else (ours).

What an edit does to a face in pictures depends on direction and generator, so the measure is relative: the same edit on
faces that the generator itself samples is what can be had. 1 means: like those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..editing.latent import apply_direction
from ..faces.landmarks import Face
from ..generators.protocol import Generator
from ..generators.sampling import sample_codes
from ..types import EditDirection, EditedLatent

PROBES = {"smile": (44, 45), "mouth open": (25,), "eyes closed": (9, 10)}
"""Shipped directions whose effect mediapipe measures, and its indices of mouthSmileLeft/Right, jawOpen,
eyeBlinkLeft/Right."""
DEFAULT_PROBE = "smile"
STRENGTH = 3.0
_FULL = 0.5
"""A face that already shows so much of it is probed the other way."""
_REFERENCE_SEEDS = (0, 1, 2, 3)
_PSI = 0.7
_SMALLEST_LEAK = 0.005
"""Blendshapes are no more exact than this."""


@dataclass(frozen=True)
class ProbeEffect:
    """What an edit did to one face."""

    gain: float
    """Change of the blendshape that the edit names, in the direction of the edit."""
    leak: float
    """Mean absolute change of all other blendshapes."""
    kept: float
    """Identity cosine between before and after; NaN without an embedder."""

    def editability(self, reference: ProbeEffect) -> float:
        """In [0, 1]: the product of what is gained, what stays and who it is, each beside the reference."""
        gained = np.clip(self.gain / max(reference.gain, 1e-6), 0, 1)
        stayed = np.clip(max(reference.leak, _SMALLEST_LEAK) / max(self.leak, _SMALLEST_LEAK), 0, 1)
        same = 1.0 if np.isnan(self.kept + reference.kept) else np.clip(self.kept / max(reference.kept, 1e-6), 0, 1)
        return float(gained * stayed * same)


LOST = ProbeEffect(0.0, 1.0, 0.0)
"""After the edit no face was found."""


@dataclass(frozen=True)
class Probe:
    """An edit whose effect can be measured.

    Raises:
        ValueError: `direction` is none of `PROBES`.
    """

    direction: EditDirection
    strength: float = STRENGTH

    def __post_init__(self) -> None:
        if self.direction.name not in PROBES:
            raise ValueError(f"A probe should be one of {', '.join(PROBES)}, but is {self.direction.name!r}.")
        if self.strength <= 0:
            raise ValueError(f"The strength of a probe should be above 0, but is {self.strength:g}.")

    def edited(self, code: Tensor, face: Face, family: str) -> tuple[Tensor, float]:
        """The `(L, D)` code after the edit, and its sign: away from where the face already is."""
        sign = -1.0 if self.shown(face) > _FULL else 1.0
        latent = EditedLatent(code, code, (), family)
        return apply_direction(latent, self.direction, sign * self.strength).w_plus_0, sign

    def shown(self, face: Face) -> float:
        """How much of it a face shows, in [0, 1]."""
        assert face.blendshapes is not None
        return float(face.blendshapes[list(PROBES[self.direction.name])].mean())

    def effect(self, before: Face, after: Face | None, sign: float, kept: float) -> ProbeEffect:
        """From two detections of one face; `kept` is their identity cosine, or NaN."""
        if after is None:
            return LOST
        assert before.blendshapes is not None and after.blendshapes is not None
        others = np.ones(len(before.blendshapes), bool)
        others[list(PROBES[self.direction.name])] = False
        change = np.abs(after.blendshapes - before.blendshapes)[others]
        return ProbeEffect(sign * (self.shown(after) - self.shown(before)), float(change.mean()), kept)


def reference_codes(generator: Generator) -> Tensor:
    """`(n, L, D)` codes of faces that the generator samples, CPU."""
    return sample_codes(generator, _REFERENCE_SEEDS, truncation_psi=_PSI)


def mean_effect(effects: list[ProbeEffect]) -> ProbeEffect | None:
    """The average of several; None of none."""
    if not effects:
        return None
    table = torch.tensor([(e.gain, e.leak, e.kept) for e in effects], dtype=torch.float64)
    gain, leak, kept = table.mean(dim=0).tolist()
    return ProbeEffect(gain, leak, kept)
