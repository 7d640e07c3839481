"""What inversion minimises between a picture and its reconstruction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from .emphasis import EXPRESSION_WEIGHT
from .identity_loss import IdentityLoss
from .perceptual import PerceptualDistance

PYRAMID = (1, 2, 4, 8)
_IDENTITY_FROM_PX = 128
_LEAST_SHARE = 0.25


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the penalties are on squares in `CodeSpace` coordinates."""

    perceptual: float = 1.0
    pyramid: float = 0.25
    identity: float = 0.1
    """Of 1 - cosine of a face embedder, where there is one; images of less than 128 px are left out."""
    row_mean: float = 0.005
    """Pull of every row to the mean of the code's rows: without it edits break."""
    size: float = 0.002
    """Pull of the whole code to the mean face, or to the anchor."""
    joint_size: float = 0.02
    """The same while all keyframes are refined together: `joint` tells why it is stronger there.

    The three were .0005, .0002 and .01 while starts came from thumbnails. The face encoder's codes lie further out:
    with those pulls 4 s with screams ended with torn mouths, and a smile bent faces (`benchmarks/README.md`, pulls)."""
    eyes_and_mouth: float = EXPRESSION_WEIGHT
    """How much their pixels count beside those of the cheeks, in the perceptual and the pyramid loss."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"The weight {name} should be 0 or more, but is {value:g}.")

    def for_detail(self, share: float) -> LossWeights:
        """The weights for faces that had `share` of the pictures' pixels per side in their source: fewer pixels say
        less, so the pulls grow as 1 / share² (ours).

        Measured on 20 keyframes of a face of 90 px, judged at 256 px, pulls times 1 / 4 / 8: identity .796 / .800 /
        .814; after adding a smile of strength 3 .674 / .704 / .720, and the blendshapes of a smile differ from the
        source's by .28 / .10 / .71.
        """
        factor = 1.0 / max(share, _LEAST_SHARE) ** 2
        return replace(
            self, row_mean=self.row_mean * factor, size=self.size * factor, joint_size=self.joint_size * factor
        )


class ReconstructionLoss:
    """Perceptual distance plus L1 on an image pyramid, both weighted by place, against one fixed target; and identity.

    Args:
        target: `(1, 3, S, S)` in [-1, 1].
        emphasis: `(1, 1, S, S)` with mean 1.
        perceptual: None leaves that term out (then the pyramid weighs twice).
        identity: None leaves that term out.
        detail_px: Side in pixels that the face had in its source, if that is less than S: images and target are both
            seen through as many pixels, so that a small face in the source asks for no blur (ours).
    """

    def __init__(
        self,
        target: Tensor,
        emphasis: Tensor,
        perceptual: PerceptualDistance | None,
        weights: LossWeights,
        identity: IdentityLoss | None = None,
        detail_px: int | None = None,
    ) -> None:
        self._detail_px = detail_px
        target = self._seen(target)
        self._identity = identity if target.shape[-1] >= _IDENTITY_FROM_PX else None
        self._perceptual, self._weights, self._emphasis = perceptual, weights, emphasis
        self._levels = [(_pool(target, k), _pool(emphasis, k)) for k in PYRAMID]
        self._features = None if perceptual is None else perceptual.features(target, exact=False)

    def __call__(self, images: Tensor) -> Tensor:
        """`(N,)` losses of `(N, 3, S, S)` images."""
        images = self._seen(images)
        loss = images.new_zeros(len(images))
        pyramid = self._weights.pyramid * (1 if self._perceptual is not None else 2)
        for k, (target, emphasis) in zip(PYRAMID, self._levels, strict=True):
            difference = (_pool(images, k) - target).abs() * emphasis
            loss = loss + pyramid * difference.mean(dim=(1, 2, 3))
        if self._perceptual is not None and self._features is not None:
            features = self._perceptual.features(images, exact=False)
            loss = loss + self._weights.perceptual * self._perceptual.between_features(
                features, self._features, self._emphasis
            )
        if self._identity is not None:
            loss = loss + self._weights.identity * self._identity(images)
        return loss

    def _seen(self, images: Tensor) -> Tensor:
        """What the source's pixels can show of `(N, 3, S, S)` images."""
        side = images.shape[-1]
        if self._detail_px is None or self._detail_px >= side:
            return images
        few = F.interpolate(images, size=self._detail_px, mode="bilinear", antialias=True)
        return F.interpolate(few, size=side, mode="bicubic")


def reconstruction_loss(
    target: Tensor,
    emphasis: Tensor,
    size: int,
    perceptual: PerceptualDistance | None,
    weights: LossWeights,
    identity: IdentityLoss | None = None,
    detail_px: int | None = None,
) -> ReconstructionLoss:
    """The loss at `size` pixels against a `target` that is larger; the arguments are those of `ReconstructionLoss`."""
    target, emphasis = F.adaptive_avg_pool2d(target, size), F.adaptive_avg_pool2d(emphasis, size)
    return ReconstructionLoss(target, emphasis / emphasis.mean(), perceptual, weights, identity, detail_px)


def code_penalty(coordinates: Tensor, weights: LossWeights, anchor: Tensor | None = None) -> Tensor:
    """`(N,)` penalties of `(N, L, D)` coordinates that keep codes where edits work.

    With an `anchor` `(1, L, D)` both pulls act on the offset from it: the rows may differ as the anchor's do, and
    what changes over time changes in all rows alike.
    """
    offset = coordinates if anchor is None else coordinates - anchor
    to_row_mean = (offset - offset.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2))
    return weights.row_mean * to_row_mean + weights.size * offset.square().mean(dim=(1, 2))


def _pool(images: Tensor, k: int) -> Tensor:
    return images if k == 1 else F.avg_pool2d(images, k)
