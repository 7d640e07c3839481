"""LPIPS (Zhang et al., CVPR 2018), version 0.1, AlexNet: used where its two weight files are on the machine.

Architecture facts from the public package `lpips` 0.1.4 and torchvision's AlexNet, whose files are read; the code is
ours. The backbone is torchvision's file, which torch keeps in its hub folder; the linear layers lie in the package.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.tensors import load_tensors
from ..model_files import ModelFile, find_model
from .perceptual import PerceptualDistance

_CONVOLUTIONS = (0, 3, 6, 8, 10)
_STRIDES = (4, 1, 1, 1, 1)
_PADDINGS = (2, 2, 1, 1, 1)
_POOLED = (1, 2)
"""Stages that begin with 3x3 max pooling of stride 2."""
LINEAR = ModelFile("The linear layers of LPIPS", "lpips", "weights/v0.1/alex.pth", ("lpips_alex.pth",), "lpips")
BACKBONE_NAMES = ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth")


class Lpips(PerceptualDistance):
    """LPIPS between network images `(N, 3, S, S)` in [-1, 1], S >= 64; differentiable, frozen.

    Args:
        backbone: tensors of torchvision's AlexNet (`features.0.weight`, …).
        linear: tensors of the package's file (`lin0.model.1.weight`, …).
    Raises:
        ValueError: other tensors.
    """

    name = "LPIPS 0.1 (alex)"

    def __init__(self, backbone: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        try:
            weights = {f"net.{name}": backbone[f"features.{i}.{kind}"] for name, i, kind in _names()}
            weights |= {f"lin{i}.model.1.weight": linear[f"lin{i}.model.1.weight"] for i in range(len(_CONVOLUTIONS))}
        except KeyError as error:
            raise ValueError(f"The weights of LPIPS lack {error.args[0]!r}: not the AlexNet files.") from error
        super().__init__(weights)

    def features(self, images: Tensor, *, exact: bool = True) -> list[Tensor]:
        """Unit-normalised feature maps of the five stages; `exact` changes nothing."""
        x = (images - self.shift) / self.scale
        maps: list[Tensor] = []
        for i, (stride, padding) in enumerate(zip(_STRIDES, _PADDINGS, strict=True)):
            if i in _POOLED:
                x = F.max_pool2d(x, 3, stride=2)
            weight, bias = getattr(self, f"weight{i}"), getattr(self, f"bias{i}")
            x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))
            maps.append(x)
        return [x / (x.square().sum(1, keepdim=True) + 1e-20).sqrt() for x in maps]


def find_lpips(folders: Iterable[Path] = ()) -> tuple[Path, Path] | None:
    """Files of the backbone and of the linear layers, or None if one of them is nowhere: nothing is downloaded.

    The backbone may lie in `folders`, in `$DYNODE_MODELS/lpips` or in torch's hub folder.
    """
    folders = [Path(folder) for folder in folders]
    try:
        linear = find_model(LINEAR, folders)
    except FileNotFoundError:
        return None
    named = [Path(os.environ["DYNODE_MODELS"]) / LINEAR.folder_hint] if "DYNODE_MODELS" in os.environ else []
    for folder in (*folders, *named, Path(torch.hub.get_dir()) / "checkpoints"):
        for name in BACKBONE_NAMES:
            if (folder / name).is_file():
                return folder / name, linear
    return None


def load_lpips(files: tuple[Path, Path], device: torch.device | str = "cpu") -> Lpips:
    """Read the two files that `find_lpips` gave, safely.

    Raises:
        ValueError: damaged, or of another network.
    """
    return Lpips(load_tensors(files[0]), load_tensors(files[1])).to(device)


def _names() -> list[tuple[str, int, str]]:
    """Name in `PerceptualDistance`, number in torchvision's list of layers, and kind of each backbone tensor."""
    slices = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
    return [
        (f"{place}.{kind}", number, kind)
        for place, number in zip(slices, _CONVOLUTIONS, strict=True)
        for kind in ("weight", "bias")
    ]
