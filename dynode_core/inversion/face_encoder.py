"""A first guess of W+ from a face: a small convolutional encoder, trained on generated faces (ours).

Trained by scripts/train_encoder.py on the faces of scripts/sample_codes.py. On 544 to 736 faces it did not save the
search any steps (benchmarks/README.md), so no weights ship and inversion starts from `thumbnail_encoder`. The rows of
W+ are told apart in four groups by what they draw: the pose and the outline, the parts of the face, their details,
texture.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoints.tensors import load_safetensors

FORMAT = "dynode-face-encoder-1"
SIDE = 128
"""Pixels of the picture that the network sees."""
GROUP_STARTS = (0, 4, 10, 15)
"""First row of each group: up to 8 px, 32 px, 128 px, and beyond."""
_FILTER_SIDE, _POOLED, _THUMBNAIL = 6, 8, 16
_SOFTENING, _THRESHOLD = 0.3, 0.25


class FaceEncoder(nn.Module):
    """`(N, 3, S, S)` aligned faces in [-1, 1] to `(N, L, D)` codes.

    Filters learned from patches respond to the local contrast of the picture at 64 px (after Coates & Ng 2011: what is
    above a threshold, by sign, pooled over places); with a thumbnail they lead through a narrow layer to the codes.
    Few weights are to be found, and most of them in closed form, so hundreds of faces are enough.

    Args:
        num_ws: rows of the codes.
        w_dim: their length.
        filters: how many.
        rank: width of the narrow layer.
    """

    def __init__(self, num_ws: int, w_dim: int, filters: int = 32, rank: int = 384) -> None:
        super().__init__()
        self.num_ws, self.w_dim = num_ws, w_dim
        self.groups = [start for start in GROUP_STARTS if start < num_ws]
        self.filters = nn.Conv2d(3, filters, _FILTER_SIDE, bias=False)
        num_features = 2 * filters * _POOLED**2 + 3 * _THUMBNAIL**2
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))
        self.narrow = nn.Linear(num_features, rank, bias=False)
        self.output = nn.Linear(rank, len(self.groups) * w_dim)

    mean: Tensor
    deviation: Tensor

    def features(self, images: Tensor) -> Tensor:
        """`(N, F)`, before they are standardised."""
        images = fitted(images)
        small = F.avg_pool2d(images, 2)
        values = small.shape[1] * _FILTER_SIDE**2
        mean = F.avg_pool2d(small.mean(dim=1, keepdim=True), _FILTER_SIDE, 1)
        square = F.avg_pool2d(small.square().mean(dim=1, keepdim=True), _FILTER_SIDE, 1)
        contrast = (values * (square - mean.square())).clamp_min(1e-6).sqrt() + _SOFTENING
        response = self.filters(small) / contrast
        signed = torch.cat([F.relu(response - _THRESHOLD), F.relu(-response - _THRESHOLD)], dim=1)
        thumbnail = F.adaptive_avg_pool2d(images, _THUMBNAIL)
        return torch.cat([F.adaptive_avg_pool2d(signed, _POOLED).flatten(1), thumbnail.flatten(1)], dim=1)

    def group_codes(self, images: Tensor) -> Tensor:
        """`(N, 3, S, S)` to `(N, G, D)`: the output layer, one row per group."""
        standard = (self.features(images) - self.mean) / self.deviation
        return self.output(self.narrow(standard)).unflatten(1, (len(self.groups), self.w_dim))

    def forward(self, images: Tensor) -> Tensor:
        return self.to_rows(self.group_codes(images))

    def to_rows(self, groups: Tensor) -> Tensor:
        """`(N, G, D)` to `(N, L, D)`."""
        counts = torch.tensor([stop - start for start, stop in pairwise([*self.groups, self.num_ws])])
        return groups.repeat_interleave(counts.to(groups.device), dim=1)


def fitted(images: Tensor) -> Tensor:
    """`(N, 3, S, S)` at `SIDE` px: averaged over areas, or enlarged if S is smaller."""
    if images.shape[-1] >= SIDE:
        return F.adaptive_avg_pool2d(images, SIDE)
    return F.interpolate(images, size=SIDE, mode="bilinear", align_corners=False)


def read_face_encoder(path: Path) -> FaceEncoder:
    """The encoder of a file that scripts/train_encoder.py wrote.

    Raises:
        ValueError: another format, or tensors that do not fit the network.
    """
    tensors, metadata = load_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path.name} should be a face encoder ({FORMAT}), but is {metadata.get('format')!r}.")
    try:
        encoder = FaceEncoder(int(metadata["num_ws"]), int(metadata["w_dim"]))
        encoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path.name} does not hold the network of this version: {error}") from error
    return encoder.eval().requires_grad_(False)


def save_face_encoder(encoder: FaceEncoder, path: Path, family: str, facts: Mapping[str, str]) -> None:
    """Write an encoder in half precision; `facts` go into the metadata."""
    kept = encoder.state_dict()
    sizes = {"num_ws": str(encoder.num_ws), "w_dim": str(encoder.w_dim)}
    metadata = {"format": FORMAT, "family": family, **sizes, **facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.safetensors")
    try:
        save_file({name: tensor.half().contiguous() for name, tensor in kept.items()}, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
