"""The grain of the camera, which rendered faces lack."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_KERNEL = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], dtype=np.float32)
_KERNEL_GAIN = 6.0
"""Standard deviation of the kernel's answer to white noise of deviation 1."""
_MAD_TO_DEVIATION = 1.4826
LARGEST_DEVIATION = 0.06


def grain_deviation(luma: Tensor, mask: Tensor) -> float:
    """Standard deviation of the fine noise in luma, as if it were white.

    Immerkaer's kernel (1996), which ignores slopes, with the median instead of the mean so that edges do not count.

    Args:
        luma: `(h, w)` in [0, 1].
        mask: `(h, w)`: where it is above 0.5 the picture is measured.
    """
    import cv2

    if min(mask.shape) < 3:
        return 0.0
    answer = cv2.filter2D(luma.contiguous().numpy(), -1, _KERNEL)[1:-1, 1:-1]
    inside = np.abs(answer[mask[1:-1, 1:-1].numpy() > 0.5])
    if len(inside) < 64:
        return 0.0
    middle = (len(inside) - 1) // 2
    return float(np.partition(inside, middle)[middle]) * _MAD_TO_DEVIATION / _KERNEL_GAIN


def make_grain(height: int, width: int, *, deviation: float, seed: int) -> Tensor:
    """`(height, width, 1)` noise that `grain_deviation` measures as `deviation`; the same `seed`, the same noise."""
    noise = np.random.default_rng(seed).standard_normal((height, width), dtype=np.float32)
    return torch.from_numpy(noise)[..., None] * min(deviation, LARGEST_DEVIATION)
