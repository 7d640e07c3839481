"""The faces of scripts/sample_codes.py as training material."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dynode_core.checkpoints.tensors import load_tensors
from dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_core.inversion.code_space import CodeSpace
from dynode_core.inversion.face_encoder import GROUP_STARTS
from dynode_core.layout import bytes_to_pictures, pictures_to_network
from sample_codes import PER_FACE

HELD_OUT_EVERY = 16
"""One face of so many is not trained on."""


@dataclass(frozen=True)
class Faces:
    """M pictures of M / PER_FACE faces."""

    pictures: Tensor
    """`(M, 128, 128, 3)` uint8."""
    coordinates: Tensor
    """`(M, G, D)` float16: the first row of each group, in `CodeSpace` coordinates."""
    read_outs: Tensor
    """`(M / PER_FACE, 3, C + 1)`: pictures of 64 px from the feature maps of that size."""

    def images(self, chosen: Tensor) -> Tensor:
        """`(N, 3, 128, 128)` in [-1, 1]."""
        return pictures_to_network(bytes_to_pictures(self.pictures[chosen].numpy()))

    @property
    def held_out(self) -> Tensor:
        """`(M,)` bool."""
        return torch.arange(len(self.pictures)) // PER_FACE % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def load_faces(folder: Path, space: CodeSpace) -> Faces:
    """All shards that are there."""
    paths = sorted(path for path in folder.glob("faces_*.safetensors") if ".part" not in path.name)
    if not paths:
        raise SystemExit(f"No faces in {folder}: run scripts/sample_codes.py first.")
    shards = [load_tensors(path) for path in paths]
    rows = torch.tensor(GROUP_STARTS)
    return Faces(
        torch.cat([shard["pictures"] for shard in shards]),
        torch.cat([space.encode(shard["w_plus"][:, rows].float()).half() for shard in shards]),
        torch.cat([shard["read_out_64"] for shard in shards]),
    )


def read(generator: MobileStyleGAN, w_plus: Tensor, read_outs: Tensor) -> Tensor:
    """`(N, 3, 64, 64)` pictures by the `(N, 3, C + 1)` read-outs of their faces, differentiable in the codes."""
    maps = generator.feature_maps(w_plus, size=64)
    pictures = torch.einsum("nkc,nchw->nkhw", read_outs[:, :, :-1], maps)
    return pictures + read_outs[:, :, -1:, None]


def wait_while(path: Path | None) -> None:
    """Until the file is gone: somebody else needs the machine."""
    while path is not None and path.exists():
        time.sleep(2)
