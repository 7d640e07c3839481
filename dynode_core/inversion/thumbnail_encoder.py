"""A first guess of w from a tiny picture: ridge regression on generated faces (ours).

Fitted by scripts/make_encoder.py; `data/thumbnail_encoder_mobile_stylegan_ffhq.safetensors` ships with the pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.tensors import load_tensors
from ..families import SHIPPED_FAMILY

SHIPPED_FILE = Path(__file__).parent / "data" / "thumbnail_encoder_mobile_stylegan_ffhq.safetensors"
SIDE = 20


@dataclass(frozen=True)
class ThumbnailEncoder:
    """w = w_mean + (thumbnail - mean) @ weight."""

    weight: Tensor
    """`(3 * SIDE**2, D)` float32."""
    mean: Tensor
    """`(3 * SIDE**2,)` float32 mean thumbnail."""
    w_mean: Tensor
    """`(D,)` float32."""

    def __call__(self, images: Tensor) -> Tensor:
        """`(N, 3, S, S)` in [-1, 1], S >= SIDE, to `(N, D)` codes."""
        return self.w_mean + (thumbnails(images) - self.mean) @ self.weight


def thumbnails(images: Tensor) -> Tensor:
    """`(N, 3, S, S)` to flattened `(N, 3 * SIDE**2)` thumbnails, averaged over areas."""
    return F.adaptive_avg_pool2d(images, SIDE).flatten(1)


def fit_thumbnail_encoder(images: Tensor, w: Tensor, ridge: float) -> ThumbnailEncoder:
    """Ridge regression from thumbnails to codes.

    Args:
        images: `(N, 3, S, S)` in [-1, 1].
        w: `(N, D)` codes of the images.
        ridge: weight of the penalty, in units of squared thumbnail values.
    """
    thumbs = thumbnails(images.double())
    mean, w_mean = thumbs.mean(0), w.double().mean(0)
    centred = thumbs - mean
    gram = centred.T @ centred + ridge * torch.eye(centred.shape[1], dtype=torch.double)
    weight = torch.linalg.solve(gram, centred.T @ (w.double() - w_mean))
    return ThumbnailEncoder(weight.float(), mean.float(), w_mean.float())


def load_thumbnail_encoder(family: str) -> ThumbnailEncoder | None:
    """The shipped encoder, or None where none was fitted for this generator family."""
    if family != SHIPPED_FAMILY or not SHIPPED_FILE.is_file():
        return None
    tensors = load_tensors(SHIPPED_FILE)
    return ThumbnailEncoder(tensors["weight"].float(), tensors["mean"].float(), tensors["w_mean"].float())
