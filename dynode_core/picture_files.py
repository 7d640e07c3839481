"""Picture files that the command line is given."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .layout import bytes_to_pictures


def read_picture(path: str) -> Tensor:
    """`(1, H, W, 3)` in [0, 1]."""
    with Image.open(path) as picture:
        return bytes_to_pictures(np.array(picture.convert("RGB")))[None]


def read_mask(path: str) -> Tensor:
    """`(H, W)` in [0, 1]: its brightness."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32) / 255)
