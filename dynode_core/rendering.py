"""Faces at the sampled times: rendered on demand, or given as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .checks import check_family, check_shape
from .generators.batching import synthesize_batches
from .generators.protocol import Generator
from .generators.tuning import with_tuning
from .layout import pictures_to_network
from .memory import reuse_large_blocks
from .tuned_weights import Tuning, stretches
from .types import TrajectorySample


@runtime_checkable
class FaceFrames(Protocol):
    """N square face images that can be read in chunks, again and again."""

    @property
    def times(self) -> np.ndarray:
        """`(N,)` float64 seconds of the source clip."""
        ...

    @property
    def fps(self) -> Fraction:
        """Rate at which they are to be played."""
        ...

    @property
    def size(self) -> int:
        """Side in pixels."""
        ...

    @property
    def num_frames(self) -> int: ...

    def read(self, start: int, stop: int) -> Tensor:
        """`(stop - start, 3, S, S)` float32 in about [-1, 1], CPU: with the edit."""
        ...

    def read_base(self, start: int, stop: int) -> Tensor | None:
        """The same frames without the edit, or None where they are not known."""
        ...


@dataclass(frozen=True)
class RenderedFaces:
    """Codes and the generator that turns them into images when they are read: a clip of any length costs no memory.

    Raises:
        ValueError: the codes belong to another generator, or `size` does not divide its resolution.
    """

    generator: Generator
    sample: TrajectorySample
    size: int
    batch: int | None = None
    """Images per pass of the generator; None: as many as the free memory of the device takes, 1 on a CPU."""

    def __post_init__(self) -> None:
        check_family("The sampled path", self.sample.family, self.generator.family)
        check_shape("w_plus", self.sample.w_plus, ("N", self.generator.num_ws, self.generator.w_dim))
        if self.size < 1 or self.generator.resolution % self.size:
            raise ValueError(
                f"size should divide the generator's resolution {self.generator.resolution}, but is {self.size}."
            )

    @property
    def times(self) -> np.ndarray:
        return self.sample.times

    @property
    def fps(self) -> Fraction:
        return self.sample.fps

    @property
    def num_frames(self) -> int:
        return len(self.sample.times)

    def read(self, start: int, stop: int) -> Tensor:
        return self._render(self.sample.w_plus[start:stop], start)

    def read_base(self, start: int, stop: int) -> Tensor | None:
        return self._render(self.sample.base_w_plus[start:stop], start)

    def _render(self, w_plus: Tensor, start: int) -> Tensor:
        times = self.sample.times[start : start + len(w_plus)]
        tuning = self.sample.tuning
        return render(self.generator, w_plus, tuning=tuning, times=times, size=self.size, batch=self.batch)


@dataclass(frozen=True)
class PictureFaces:
    """Faces that another program made: `(N, S, S, 3)` pictures in [0, 1], one per entry of `times`.

    Of `(N, S, S, 4)` the alpha channel is left out.
    """

    pictures: Tensor
    times: np.ndarray
    fps: Fraction

    def __post_init__(self) -> None:
        check_shape("pictures", self.pictures[..., :3], (len(self.times), "S", "S", 3))
        if self.pictures.shape[1] != self.pictures.shape[2]:
            height, width = self.pictures.shape[1:3]
            raise ValueError(f"Face pictures should be square, but are {width} x {height} pixels.")

    @property
    def size(self) -> int:
        return int(self.pictures.shape[1])

    @property
    def num_frames(self) -> int:
        return len(self.times)

    def read(self, start: int, stop: int) -> Tensor:
        return pictures_to_network(self.pictures[start:stop, ..., :3].float().cpu())

    def read_base(self, start: int, stop: int) -> Tensor | None:
        return None


@torch.no_grad()
def render(
    generator: Generator,
    w_plus: Tensor,
    *,
    tuning: Tuning | None = None,
    times: np.ndarray | None = None,
    size: int | None = None,
    batch: int | None = None,
) -> Tensor:
    """Images of codes, `batch` at a time; fewer where the device runs out of memory.

    Args:
        w_plus: `(N, L, D)` float32, any device.
        tuning: weights that came with the codes.
        times: `(N,)` seconds of the clip that the codes belong to; only weights tuned for each shot need them.
        size: side of the images; default the generator's resolution.
        batch: see `RenderedFaces.batch`.
    Returns:
        `(N, 3, S, S)` float32 in about [-1, 1], CPU.
    Raises:
        ValueError: there are weights for each shot, but no times.
    """
    side = size or generator.resolution
    if not len(w_plus):
        return torch.empty(0, 3, side, side)
    parts = [(slice(None), tuning)] if times is None else stretches(tuning, times)
    images: list[Tensor] = []
    with reuse_large_blocks():
        for part, weights in parts:
            images += synthesize_batches(with_tuning(generator, weights), w_plus[part], size=size, batch=batch)
    return torch.cat(images)
