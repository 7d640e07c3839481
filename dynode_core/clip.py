"""A clip in memory, and the exact frame rate behind a rounded one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checks import check_finite, check_increasing


def exact_fps(rate: float | int | str | Fraction) -> Fraction:
    """The frame rate that `rate` stands for: 29.97 and "29.97" give 30000/1001, 25.0 gives 25.

    A Fraction comes back as it is. Broadcast rates are n * 1000/1001 (SMPTE ST 12-1); a decimal number within 2e-5 of
    one of them (relative) means it.

    Raises:
        ValueError: not a positive, finite number.
    """
    try:
        value = Fraction(rate)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"The frame rate should be a number above 0, but is {rate!r}.") from error
    if value <= 0:
        raise ValueError(f"The frame rate should be above 0, but is {rate!r}.")
    if isinstance(rate, (int, Fraction)) or value.denominator == 1:
        return value
    broadcast = Fraction(round(value * 1001 / 1000) * 1000, 1001)
    if abs(broadcast - value) < value * Fraction(2, 10**5):
        return broadcast
    return value.limit_denominator(10**5)


def check_indices(indices: Sequence[int], num_frames: int) -> list[int]:
    """The `indices` as plain integers; ValueError unless they are non-decreasing and inside the clip."""
    chosen = [int(i) for i in indices]
    if any(b < a for a, b in zip(chosen, chosen[1:], strict=False)):
        raise ValueError(f"Frames are read in non-decreasing order, but the indices {chosen[:8]} go back. Sort them.")
    if chosen and (chosen[0] < 0 or chosen[-1] >= num_frames):
        raise ValueError(f"Frames {chosen[0]} to {chosen[-1]} were asked for; the clip holds 0 to {num_frames - 1}.")
    return chosen


class TensorClip:
    """The `VideoClip` protocol over a tensor that is already in memory.

    Args:
        frames: `(T, H, W, 3)` float in [0, 1]; of `(T, H, W, 4)` the alpha channel is left out.
        fps: frames per second; see `exact_fps`.
        frame_times: `(T,)` float64 seconds, increasing, the first one 0; None: evenly spaced at `fps`.

    Raises:
        ValueError: no frames, another shape, no float values, NaN, or a rate that is not positive.
    """

    path: Path | None = None

    def __init__(
        self, frames: Tensor, fps: float | Fraction, *, frame_times: np.ndarray | Sequence[float] | None = None
    ) -> None:
        if frames.ndim != 4 or frames.shape[-1] not in (3, 4) or not frames.is_floating_point():
            raise ValueError(
                f"A clip should be a float tensor (T, H, W, 3), but is {frames.dtype} of shape {tuple(frames.shape)}."
            )
        if 0 in frames.shape:
            raise ValueError(f"The clip is empty: its shape is {tuple(frames.shape)}. Connect at least one frame.")
        for start in range(0, len(frames), 16):
            check_finite("The clip", frames[start : start + 16])
        self._frames = frames[..., :3]
        self.num_frames, self.height, self.width = (int(size) for size in frames.shape[:3])
        self.fps = exact_fps(fps)
        if frame_times is None:
            self.frame_times = np.arange(self.num_frames, dtype=np.float64) / float(self.fps)
        else:
            self.frame_times = np.array(frame_times, dtype=np.float64)
            check_increasing("frame_times", self.frame_times)
        if len(self.frame_times) != self.num_frames or self.frame_times[0] != 0:
            raise ValueError(
                f"frame_times should hold {self.num_frames} times and begin at 0, but holds {len(self.frame_times)} "
                f"and begins at {self.frame_times[0]:g}."
            )

    @cached_property
    def clip_id(self) -> str:
        """Hash of size, times and every 8-bit frame."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((tuple(self._frames.shape), str(self.fps))).encode())
        digest.update(self.frame_times.tobytes())
        for frame in self._frames:
            digest.update(frame.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def read(self, indices: Sequence[int]) -> Tensor:
        """`(n, H, W, 3)` float32 in [0, 1] on the CPU for non-decreasing `indices`: a copy."""
        chosen = check_indices(indices, self.num_frames)
        return self._frames[chosen].detach().to("cpu", torch.float32)

    def chunks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of first frame, `(n, H, W, 3)` float32) with n <= `size`, in order."""
        for start in range(0, self.num_frames, size):
            yield start, self.read(range(start, min(start + size, self.num_frames)))
