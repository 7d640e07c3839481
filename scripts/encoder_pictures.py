"""What training does to generated faces so that they look like crops of real video.

Every function takes and returns `(N, 3, S, S)` in [-1, 1] and draws from a seeded `torch.Generator`.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from dynode_core.layout import bytes_to_pictures, network_to_bytes, pictures_to_network

MOST_SHIFTED, MOST_SCALED, MOST_TURNED = 0.05, 0.06, math.radians(4)
"""Crop jitter: shares of the side; the same code is wanted as for the picture in place."""
SHRUNK_SIDES = (32, 40, 48, 64, 80)
JPEG_QUALITIES = (15, 85)
MOST_BORDER = 0.2
"""Share of the side that can lie outside the frame."""


def disturbed(images: Tensor, random: Generator) -> Tensor:
    """All disturbances, each on a part of the pictures."""
    images = in_colour(jittered(images, random), random)
    images = with_border(images, random)
    images = shrunk(images, random)
    images = noisy(images, random)
    return compressed(images, random)


def jittered(images: Tensor, random: Generator) -> Tensor:
    """Shifted, scaled and turned a little, mirrored at the edges."""
    count = len(images)
    draw = torch.randn(4, count, generator=random).clamp(-2, 2) / 2
    angle, scale = MOST_TURNED * draw[0], torch.exp(MOST_SCALED * draw[1])
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    shift = 2 * MOST_SHIFTED * draw[2:]
    matrix = torch.stack([cosine, -sine, shift[0], sine, cosine, shift[1]], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def in_colour(images: Tensor, random: Generator) -> Tensor:
    """Another exposure, contrast, white balance, saturation and gamma."""
    count = len(images)
    draw = torch.randn(7, count, 1, 1, 1, generator=random)
    pictures = (images + 1) / 2
    balance = torch.exp(0.06 * draw[4:7, :, :, 0, 0]).permute(1, 0, 2)[..., None]
    pictures = pictures.clamp(1e-3, 1) ** torch.exp(0.15 * draw[0]) * torch.exp(0.12 * draw[1]) * balance
    grey, mean = pictures.mean(dim=1, keepdim=True), pictures.mean(dim=(1, 2, 3), keepdim=True)
    pictures = grey + torch.exp(0.2 * draw[2]) * (pictures - grey)
    pictures = mean + torch.exp(0.1 * draw[3]) * (pictures - mean)
    return pictures.clamp(0, 1) * 2 - 1


def with_border(images: Tensor, random: Generator, share: float = 0.3) -> Tensor:
    """One side of some pictures as FrameAlign fills what lies outside the frame: mirrored, blurred and faded."""
    side = images.shape[-1]
    kept = images.clone()
    for i in range(len(images)):
        used, depth, where = torch.rand(3, generator=random).tolist()
        if used >= share:
            continue
        rows, turns = max(2, round(MOST_BORDER * depth * side)), int(4 * where)
        image = torch.rot90(kept[i], turns, (1, 2))
        strip = image[:, rows : 2 * rows].flip(1)
        soft = F.interpolate(F.adaptive_avg_pool2d(strip[None], (2, 8)), (rows, side), mode="bilinear")[0]
        fade = torch.linspace(1, 0, rows)[:, None]
        image = torch.cat([soft * fade + strip * (1 - fade), image[:, rows:]], dim=1)
        kept[i] = torch.rot90(image, -turns, (1, 2))
    return kept


def shrunk(images: Tensor, random: Generator) -> Tensor:
    """Half of the pictures made small and large again: a distant, blurred face."""
    small = SHRUNK_SIDES[int(torch.randint(len(SHRUNK_SIDES), (1,), generator=random))]
    soft = F.interpolate(images, size=small, mode="bilinear", antialias=True)
    soft = F.interpolate(soft, size=images.shape[-1], mode="bicubic", align_corners=False).clamp(-1, 1)
    return torch.where(_some(len(images), 0.5, random), soft, images)


def noisy(images: Tensor, random: Generator) -> Tensor:
    """Some pictures with the noise of a sensor."""
    strength = 0.08 * torch.rand(len(images), 1, 1, 1, generator=random)
    noise = strength * torch.randn(images.shape, generator=random)
    return torch.where(_some(len(images), 0.5, random), (images + noise).clamp(-1, 1), images)


def compressed(images: Tensor, random: Generator, share: float = 0.3) -> Tensor:
    """Some pictures after JPEG."""
    kept = images.clone()
    low, high = JPEG_QUALITIES
    for i in range(len(images)):
        used, quality = torch.rand(2, generator=random).tolist()
        if used >= share:
            continue
        file = io.BytesIO()
        Image.fromarray(network_to_bytes(images[i : i + 1])[0]).save(
            file, "JPEG", quality=round(low + (high - low) * quality)
        )
        kept[i] = pictures_to_network(bytes_to_pictures(_decoded(file))[None])[0]
    return kept


def _decoded(file: io.BytesIO) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def _some(count: int, share: float, random: Generator) -> Tensor:
    return torch.rand(count, 1, 1, 1, generator=random) < share
