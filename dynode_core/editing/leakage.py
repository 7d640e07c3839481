"""Change one attribute and keep another by what was measured (ours).

Taking the common part of two directions out (`conditional.keeping`) helps if both are read-outs of their attributes, as
InterFaceGAN's are. The shipped ones are not: measured on four faces, a smile at right angles to "pitch" nodded by
-0.86 degrees per unit, and by -0.75 without. For them the effects are known instead (scripts/make_directions.py): so
much of the directions to keep is added that their attributes stay where they are, to first order. It then nodded by
-0.29 degrees, and smiled as much.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

EFFECTS_FILE = Path(__file__).parent / "data" / "directions_mobile_stylegan_ffhq.json"
_LEAST_EFFECT = 0.02
"""Share of a direction's effect that must be left by those to keep, seen one by one; else nothing can be solved for."""

_MOST_ADDED = 1.0


@functools.lru_cache(maxsize=1)
def measured_effects() -> dict[str, dict[str, float]]:
    """For each shipped direction the change of each attribute per unit of strength (blendshapes, degrees)."""
    return json.loads(EFFECTS_FILE.read_text(encoding="utf-8"))["per_unit_of_strength"]


def compensation(name: str, kept: Sequence[str]) -> tuple[float, ...] | None:
    """How much of each of `kept` to add to `name` so that their attributes stay; None if it was not measured.

    Raises:
        ValueError: one of `kept` is the direction itself, or they can't be told apart.
    """
    table = measured_effects()
    if name not in table or not kept or any(other not in table for other in kept):
        return None
    if name in kept or len(set(kept)) != len(kept):
        listed = ", ".join(kept)
        raise ValueError(f"Nothing is left of {name!r} if {listed} are kept: name other directions, each once.")
    effects = np.array([[table[by][of] for by in kept] for of in kept])
    own = np.array([abs(table[of][of]) for of in kept])
    scaled = effects / own[:, None]
    if np.linalg.svd(scaled, compute_uv=False)[-1] < _LEAST_EFFECT:
        raise ValueError(f"The directions {', '.join(kept)} can't be kept together: they change the same. Keep fewer.")
    leak = np.array([table[name][of] for of in kept]) / own
    shares = tuple(float(part) for part in np.linalg.solve(scaled, -leak))
    for other, share in zip(kept, shares, strict=True):
        if abs(share) > _MOST_ADDED:
            raise ValueError(
                f"{other!r} can't be kept: that direction changes its own attribute so little that {share:.1f} times "
                f"of it would be needed for each unit of {name!r}."
            )
    return shares
