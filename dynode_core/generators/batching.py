"""Many codes to images in passes that fit the free memory (ours)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .protocol import Generator

BYTES_PER_PIXEL = 640
"""Working memory of one image without gradients, per output pixel, float32: five copies of 32 feature maps at full
size, the widest block of StyleGAN2 config-f. An estimate from the layer sizes; too small a guess costs one halving."""

_USABLE_PART = 0.8


def batch_that_fits(generator: Generator, *, limit: int = 32) -> int:
    """How many images per pass the free memory of the device allows: 1 on the CPU, where more is no faster."""
    if generator.device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(generator.device)
    reserved = torch.cuda.memory_reserved(generator.device) - torch.cuda.memory_allocated(generator.device)
    per_image = BYTES_PER_PIXEL * generator.resolution**2
    return max(1, min(limit, int((free + reserved) * _USABLE_PART / per_image)))


@torch.no_grad()
def synthesize_batches(
    generator: Generator, w_plus: Tensor, *, size: int | None = None, batch: int | None = None
) -> Iterator[Tensor]:
    """Yield the images of `w_plus` in order, as many at a time as fit.

    Args:
        w_plus: `(N, L, D)` codes on any device.
        size: see `Generator.synthesize`.
        batch: images per pass; None chooses by the free memory. It is halved, for good, whenever memory runs out.
    Yields:
        `(n, 3, S, S)` float32 on the CPU in about [-1, 1].
    Raises:
        torch.OutOfMemoryError: not even one image fits.
    """
    batch = batch_that_fits(generator) if batch is None else batch
    start = 0
    while start < len(w_plus):
        try:
            images = generator.synthesize(w_plus[start : start + batch].to(generator.device), size=size)
            images = images.float().cpu()
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch = batch // 2
            torch.cuda.empty_cache()
            continue
        yield images
        start += len(images)
