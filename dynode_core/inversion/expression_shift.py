"""Where a keyframe's search starts: the code of the anchor, moved along directions by what blendshapes measured (ours).

A wide open mouth is many steps of gradient descent away from a closed one, and a few steps stop half way. Measured on
20 keyframes with strong expressions (mean error of jawOpen / eyeBlink / mouthSmile after equal steps): without the
shift the start is off by .36 / .08 / .23, with one of 7.5 per blendshape by .14 / .07 / .02; refined from there
.06 / .03 / .03. With 6 and the pull to the mean face that `joint` tells of, .09 / .04 / .08.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..rows import rows_of
from ..types import AlignedClip, EditDirection

BLENDSHAPES = {"mouth open": (25,), "eyes closed": (9, 10), "smile": (44, 45)}
"""mediapipe's indices of jawOpen, eyeBlinkLeft/Right and mouthSmileLeft/Right."""
STRENGTH_PER_BLENDSHAPE = 6.0
"""Strength of the shipped directions that moves a blendshape by about 1 (measured: mouth open .55 at 4, .72 at 6)."""


def expression_shift(
    aligned: AlignedClip,
    indices: np.ndarray,
    directions: Mapping[str, EditDirection],
    num_ws: int,
    anchor: int = 0,
    shares: Mapping[str, float] | None = None,
) -> Tensor:
    """`(K, L, 1)` or `(K, L, D)` float32 to be added to the code of frame `indices[anchor]`.

    Args:
        shares: how much of each of `BLENDSHAPES` is wanted, those left out not at all; None: all of it.

    Without blendshapes, or without a direction for them, it is 0.
    """
    blendshapes = aligned.track.blendshapes
    shift = torch.zeros(len(indices), num_ws, 1)
    if blendshapes is None:
        return shift
    change = torch.from_numpy(blendshapes[indices] - blendshapes[indices[anchor]]).float()
    for name, columns in BLENDSHAPES.items():
        share = 1.0 if shares is None else shares.get(name, 0.0)
        if name not in directions or not share:
            continue
        strength = share * STRENGTH_PER_BLENDSHAPE * change[:, list(columns)].mean(dim=1)
        shift = shift + strength[:, None, None] * rows_of(directions[name], num_ws)
    return shift
