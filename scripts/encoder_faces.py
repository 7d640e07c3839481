"""The faces of scripts/sample_codes.py as training material."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dynode_core.checkpoints.tensors import load_tensors
from dynode_core.inversion.code_space import CodeSpace
from dynode_core.inversion.face_encoder import GROUP_STARTS
from dynode_core.layout import bytes_to_pictures, pictures_to_network
from sample_codes import PER_FACE

HELD_OUT_EVERY = 16
"""One face of so many is not trained on."""


@dataclass(frozen=True)
class Shard:
    """M pictures of M / PER_FACE faces, those of one file."""

    first: int
    """Number of the first face."""
    pictures: Tensor
    """`(M, 128, 128, 3)` uint8."""
    w_plus: Tensor
    """`(M, L, D)` float16."""

    def images(self, chosen: slice) -> Tensor:
        """`(N, 3, 128, 128)` in [-1, 1]."""
        return pictures_to_network(bytes_to_pictures(self.pictures[chosen].numpy()))

    def coordinates(self, space: CodeSpace) -> Tensor:
        """`(M, G * D)`: the first row of each group, in `space`."""
        return space.encode(self.w_plus[:, torch.tensor(GROUP_STARTS)].float()).flatten(1)

    @property
    def held_out(self) -> Tensor:
        """`(M,)` bool."""
        return (self.first + torch.arange(len(self.pictures)) // PER_FACE) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def load_shards(folder: Path) -> list[Shard]:
    """All that are there."""
    paths = sorted(path for path in folder.glob("faces_*.safetensors") if ".part" not in path.name)
    if not paths:
        raise SystemExit(f"No faces in {folder}: run scripts/sample_codes.py first.")
    found = []
    for path in paths:
        tensors = load_tensors(path)
        found.append(Shard(int(path.stem.removeprefix("faces_")), tensors["pictures"], tensors["w_plus"]))
    return found
