"""The only place where image layouts and value ranges are converted.

Two layouts exist. Pictures: `(..., H, W, 3)` in [0, 1], as ComfyUI and video files use them.
Network images: `(..., 3, H, W)` in [-1, 1], as StyleGAN2 uses them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = torch.tensor([0.299, 0.587, 0.114])
"""Brightness of red, green and blue (ITU-R BT.601): `pictures @ LUMA`."""


def pictures_to_network(pictures: Tensor) -> Tensor:
    """`(N, H, W, 3)` in [0, 1] to `(N, 3, H, W)` in [-1, 1], same dtype and device."""
    return pictures.permute(0, 3, 1, 2).contiguous().mul(2).sub_(1)


def network_to_pictures(images: Tensor) -> Tensor:
    """`(N, 3, H, W)` in about [-1, 1] to `(N, H, W, 3)` clamped to [0, 1], same dtype and device."""
    return images.detach().permute(0, 2, 3, 1).add(1).mul(0.5).clamp(0, 1).contiguous()


def pictures_to_bytes(pictures: Tensor) -> np.ndarray:
    """`(..., 3)` float in [0, 1] to uint8, rounded to nearest."""
    return pictures.detach().mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8).cpu().numpy()


def bytes_to_pictures(data: np.ndarray) -> Tensor:
    """`(..., 3)` uint8 to float32 in [0, 1]. `pictures_to_bytes` gives the same bytes back."""
    return torch.from_numpy(np.divide(data, 255, dtype=np.float32, order="C"))


def network_to_bytes(images: Tensor) -> np.ndarray:
    """`(N, 3, H, W)` in about [-1, 1] to `(N, H, W, 3)` uint8: for previews."""
    return pictures_to_bytes(network_to_pictures(images))


def masks_of_size(masks: Tensor, height: int, width: int) -> Tensor:
    """`(H, W)`, `(n, H, W)` or `(n, 1, H, W)` in [0, 1], any device, to `(n, height, width)` float32 on the CPU.

    Raises:
        ValueError: another shape.
    """
    layers = masks.unsqueeze(0) if masks.ndim == 2 else masks.squeeze(1) if masks.ndim == 4 else masks
    if layers.ndim != 3 or 0 in layers.shape:
        raise ValueError(f"masks should have shape (n, H, W), but have {tuple(masks.shape)}.")
    layers = layers.detach().to("cpu", torch.float32)
    if layers.shape[1:] == (height, width):
        return layers
    return F.interpolate(layers[:, None], (height, width), mode="bilinear", antialias=True)[:, 0].clamp(0, 1)
