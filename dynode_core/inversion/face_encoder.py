"""A first guess of W+ from what frozen networks see in a face (ours): linear, trained on generated faces.

Trained by scripts/train_encoder.py on the faces of scripts/sample_codes.py, then its last layers through the
generator by scripts/refine_encoder.py; `data/face_encoder_mobile_stylegan_ffhq.safetensors` ships with the pack. No
filters are learned: blendshapes and pose, feature maps of the perceptual network, the embedding of the identity network
and a thumbnail lead by ridge regression to the codes. What blendshapes and pose explain is taken off the other features
before these are asked, since on real faces feature maps alone see smiles and teeth everywhere (see
benchmarks/README.md). The rows of W+ are told apart in four groups by what they draw: the pose and the outline, the
parts of the face, their details, texture.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoints.tensors import load_safetensors
from ..families import SHIPPED_FAMILY
from .identity_loss import IdentityNetwork, grid_of_points
from .perceptual import PerceptualDistance

FORMAT = "dynode-face-encoder-3"
SHIPPED_FILE = Path(__file__).parent / "data" / "face_encoder_mobile_stylegan_ffhq.safetensors"
LOOKS_THROUGH = (PerceptualDistance.name, "face_recognition_sface_2021dec")
"""Names of the two networks."""
SIDE = 128
"""Pixels of the picture that the networks see."""
GROUP_STARTS = (0, 4, 10, 15)
"""First row of each group: up to 8 px, 32 px, 128 px, and beyond."""
STAGES, MAP_CHANNELS = (1, 3), (192, 256)
"""Stages of the perceptual network that are read, and their channels."""
CELLS, CHANNELS, THUMBNAIL, EMBEDDING = 8, 64, 24, 128
EXPRESSION = 53
"""mediapipe's blendshapes but the neutral one, then yaw and pitch in degrees."""
_MOST_UNUSUAL = 4.0
"""So many deviations from the mean of the generated faces an expression counts at most."""
FIVE_POINTS = ((0.3831, 0.4789), (0.6183, 0.4788), (0.5041, 0.6392), (0.3917, 0.7277), (0.6117, 0.7286))
"""Where an aligned crop has eyes, nose and corners of the mouth, in its sides: mean of 60 generated faces."""


@dataclass(frozen=True)
class Looks:
    """What the frozen networks see in N faces."""

    maps: tuple[Tensor, ...]
    """One `(N, C, CELLS**2)` for each of `STAGES`."""
    thumbnail: Tensor
    """`(N, 3 * THUMBNAIL**2)`"""
    embedding: Tensor
    """`(N, EMBEDDING)` unit vectors."""
    expression: Tensor
    """`(N, EXPRESSION)`, from `expression_of`."""


def expression_of(blendshapes: np.ndarray, pose_deg: np.ndarray) -> Tensor:
    """`(N, 52)` blendshapes in [0, 1] and `(N, 3)` yaw, pitch, roll in degrees to `(N, EXPRESSION)` float32. An
    aligned face has no roll.
    """
    return torch.from_numpy(np.concatenate([blendshapes[:, 1:], pose_deg[:, :2]], axis=1)).float()


@torch.no_grad()
def look_at(images: Tensor, expression: Tensor, perceptual: PerceptualDistance, identity: IdentityNetwork) -> Looks:
    """`(N, 3, S, S)` aligned faces in [-1, 1], one after the other since feature maps are large, and their
    `(N, EXPRESSION)`.
    """
    images, grid = fitted(images), grid_of_points(FIVE_POINTS).to(images.device)
    maps: list[list[Tensor]] = [[] for _ in STAGES]
    for image in images.split(1):
        found = perceptual.features(image, exact=False)
        for kept, stage in zip(maps, STAGES, strict=True):
            kept.append(F.adaptive_avg_pool2d(found[stage], CELLS).flatten(2))
    thumbnail = F.adaptive_avg_pool2d(images, THUMBNAIL).flatten(1)
    embedding = torch.cat([identity.embed(image, grid) for image in images.split(1)])
    return Looks(tuple(torch.cat(kept) for kept in maps), thumbnail, embedding, expression.to(images.device))


class FaceEncoder(nn.Module):
    """`Looks` of N faces to `(N, L, D)` codes, linear.

    Args:
        num_ws: rows of the codes.
        w_dim: their length.
        rank: width of the narrow layer.
    """

    mean: Tensor
    expression_mean: Tensor
    expression_deviation: Tensor

    def __init__(self, num_ws: int, w_dim: int, rank: int = 384) -> None:
        super().__init__()
        self.num_ws, self.w_dim = num_ws, w_dim
        self.groups = [start for start in GROUP_STARTS if start < num_ws]
        for i, channels in enumerate(MAP_CHANNELS):
            self.register_buffer(f"axes{i}", torch.zeros(channels, CHANNELS))
        num_features = len(STAGES) * CHANNELS * CELLS**2 + 3 * THUMBNAIL**2 + EMBEDDING
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("expression_mean", torch.zeros(EXPRESSION))
        self.register_buffer("expression_deviation", torch.ones(EXPRESSION))
        self.narrow = nn.Linear(num_features, rank, bias=False)
        self.output = nn.Linear(rank, len(self.groups) * w_dim)
        self.moved = nn.Linear(EXPRESSION, len(self.groups) * w_dim, bias=False)

    def features(self, looks: Looks) -> Tensor:
        """`(N, F)`: maps in their `CHANNELS` main axes, thumbnail, embedding."""
        maps = [torch.einsum("ncp,ck->nkp", x, getattr(self, f"axes{i}")).flatten(1) for i, x in enumerate(looks.maps)]
        return torch.cat([*maps, looks.thumbnail, looks.embedding], dim=1)

    def expression(self, looks: Looks) -> Tensor:
        """`(N, EXPRESSION)` in deviations of the generated faces."""
        offset = (looks.expression - self.expression_mean) / self.expression_deviation
        return offset.clamp(-_MOST_UNUSUAL, _MOST_UNUSUAL)

    def forward(self, looks: Looks) -> Tensor:
        groups = self.output(self.narrow(self.features(looks) - self.mean)) + self.moved(self.expression(looks))
        return self.to_rows(groups.unflatten(1, (len(self.groups), self.w_dim)))

    def to_rows(self, groups: Tensor) -> Tensor:
        """`(N, G, D)` to `(N, L, D)`."""
        counts = torch.tensor([stop - start for start, stop in pairwise([*self.groups, self.num_ws])])
        return groups.repeat_interleave(counts.to(groups.device), dim=1)


def fitted(images: Tensor) -> Tensor:
    """`(N, 3, S, S)` at `SIDE` px: averaged over areas, or enlarged if S is smaller."""
    if images.shape[-1] >= SIDE:
        return F.adaptive_avg_pool2d(images, SIDE)
    return F.interpolate(images, size=SIDE, mode="bilinear", align_corners=False)


def shipped_face_encoder(family: str) -> FaceEncoder | None:
    """The encoder that ships with the pack, or None where none was trained for this generator family."""
    return read_face_encoder(SHIPPED_FILE) if family == SHIPPED_FAMILY and SHIPPED_FILE.is_file() else None


def read_face_encoder(path: Path) -> FaceEncoder:
    """The encoder of a file that scripts/train_encoder.py or refine_encoder.py wrote.

    Raises:
        ValueError: another format, or tensors that do not fit the network.
    """
    tensors, metadata = load_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path.name} should be a face encoder ({FORMAT}), but is {metadata.get('format')!r}.")
    try:
        encoder = FaceEncoder(int(metadata["num_ws"]), int(metadata["w_dim"]), int(metadata["rank"]))
        encoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path.name} does not hold the network of this version: {error}") from error
    return encoder.eval().requires_grad_(False)


def save_face_encoder(encoder: FaceEncoder, path: Path, family: str, facts: Mapping[str, str]) -> None:
    """Write an encoder in half precision; `facts` go into the metadata."""
    sizes = {"num_ws": encoder.num_ws, "w_dim": encoder.w_dim, "rank": encoder.narrow.out_features}
    metadata = {"format": FORMAT, "family": family, **{name: str(size) for name, size in sizes.items()}, **facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.safetensors")
    try:
        save_file({name: tensor.half().contiguous() for name, tensor in encoder.state_dict().items()}, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
