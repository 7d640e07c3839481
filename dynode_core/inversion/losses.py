"""What inversion minimises between a picture and its reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .perceptual import PerceptualDistance

PYRAMID = (1, 2, 4, 8)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the penalties are on squared differences of W+ rows."""

    perceptual: float = 1.0
    pyramid: float = 0.25
    row_mean: float = 0.003
    """Pull of every row to the mean of the code's rows: without it edits break."""
    w_avg: float = 0.0005
    anchor: float = 0.002
    """Pull to a given code, where there is one; then the other two pulls are left out."""


class ReconstructionLoss:
    """Perceptual distance plus L1 on an image pyramid, both weighted by place, against one fixed target.

    Args:
        target: `(1, 3, S, S)` in [-1, 1].
        emphasis: `(1, 1, S, S)` with mean 1.
        perceptual: None leaves that term out (then the pyramid weighs twice).
    """

    def __init__(
        self, target: Tensor, emphasis: Tensor, perceptual: PerceptualDistance | None, weights: LossWeights
    ) -> None:
        self._perceptual, self._weights, self._emphasis = perceptual, weights, emphasis
        self._levels = [(_pool(target, k), _pool(emphasis, k)) for k in PYRAMID]
        self._features = None if perceptual is None else perceptual.features(target, exact=False)

    def __call__(self, images: Tensor) -> Tensor:
        """`(N,)` losses of `(N, 3, S, S)` images."""
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
        return loss


def code_penalty(w_plus: Tensor, w_avg: Tensor, weights: LossWeights, anchor: Tensor | None = None) -> Tensor:
    """`(N,)` penalties of `(N, L, D)` codes that keep them where edits work, or close to an `anchor` `(1, L, D)`."""
    if anchor is not None:
        return weights.anchor * (w_plus - anchor).square().mean(dim=(1, 2))
    to_row_mean = (w_plus - w_plus.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2))
    to_w_avg = (w_plus - w_avg).square().mean(dim=(1, 2))
    return weights.row_mean * to_row_mean + weights.w_avg * to_w_avg


def _pool(images: Tensor, k: int) -> Tensor:
    return images if k == 1 else F.avg_pool2d(images, k)
