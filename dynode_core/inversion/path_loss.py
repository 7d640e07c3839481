"""Losses between pictures along a path: what gradient training of a trajectory minimises beside the codes' distance.

The paper's objective has three terms: codes, features and images (section 4.1). The codes are the business of
`ode.gradient`; this is the rest, over the faces that the generator makes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..generators import Generator
from ..generators.tuning import with_tuning
from ..tuned_weights import Tuning, stretches
from .perceptual import PerceptualDistance

SMALLEST_PX = 64
"""The perceptual distance needs this many pixels."""


@dataclass(frozen=True)
class PathPictureLoss:
    """Weighted mean squared difference and perceptual distance of the pictures of two sets of codes."""

    generator: Generator
    perceptual: PerceptualDistance | None
    size: int
    """Side of the pictures in pixels, >= 64; a divisor of the generator's resolution."""
    image_weight: float = 1.0
    feature_weight: float = 1.0
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        if self.size < SMALLEST_PX or self.generator.resolution % self.size:
            raise ValueError(
                f"The size of pictures in the loss should be at least {SMALLEST_PX} and divide the generator's "
                f"resolution {self.generator.resolution}, but is {self.size}."
            )
        if self.feature_weight > 0 and self.perceptual is None:
            raise ValueError("The feature loss needs the perceptual network, but there is none. Set its weight to 0.")

    @property
    def loss_id(self) -> str:
        """Names all that the loss depends on but the tuning, which belongs to the codes."""
        return f"{self.generator.generator_id} {self.size} {self.image_weight:g} {self.feature_weight:g}"

    def __call__(self, solved: Tensor, observed: Tensor, times: np.ndarray) -> Tensor:
        """`(n, L, D)` codes of `(n,)` seconds of the clip to a scalar; gradients flow to `solved`. One face at a time,
        so memory stays small."""
        total = solved.new_zeros(())
        for part, tuning in stretches(self.tuning, times):
            generator = with_tuning(self.generator, tuning)
            for ours, theirs in zip(solved[part], observed[part], strict=True):
                total = total + self._loss(generator, ours[None], theirs[None]).to(total)
        return total / len(solved)

    def _loss(self, generator: Generator, ours: Tensor, theirs: Tensor) -> Tensor:
        with torch.no_grad():
            target = generator.synthesize(theirs.to(generator.device), size=self.size).float()
        picture = generator.synthesize(ours.to(generator.device), size=self.size).float()
        loss = self.image_weight * (picture - target).square().mean()
        if self.perceptual is not None and self.feature_weight > 0:
            loss = loss + self.feature_weight * self.perceptual(picture, target).mean()
        return loss
