"""Find the frames at which a clip changes from one shot to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..layout import pictures_to_bytes
from ..progress import Progress, silent
from ..types import VideoClip

_FRAMES_PER_READ = 8
_COLUMNS, _ROWS = 32, 18
_CHANGE = 0.5
"""Least dissimilarity of the small pictures, 1 - correlation, at a cut: 0.68 and more at the cuts of our test footage,
up to 0.39 where the camera or a person moves fast."""
_PROMINENCE = 3.0
"""How many times larger than in the frames around it the dissimilarity is at a cut."""
_NEIGHBOURS = 4
_FLAT = 8.0
"""Pictures whose contrast is below this many of 255 levels resemble each other, whatever their correlation."""


class CutDetector:
    """Compares small pictures of neighbouring frames; at a cut they differ, and much more than those around it do.

    Source: ours. The dissimilarity of two frames is 1 minus the correlation of their 32 x 18 colour thumbnails, so
    brightness and contrast (a flash, a fade) count little; one moving face changes it slowly.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._change: list[float] = []

    def add(self, picture: np.ndarray) -> bool:
        """Take in the next frame, `(H, W, 3)` uint8; whether a cut may lie before it, as far as one can tell by now."""
        before, self._last = self._last, _thumbnail(picture)
        if before is None:
            self._change.append(0.0)
            return True
        norm = float(np.linalg.norm(before) * np.linalg.norm(self._last))
        self._change.append((norm - float((before * self._last).sum())) / (norm + before.size * _FLAT**2))
        return self._change[-1] > _CHANGE

    def segments(self) -> np.ndarray:
        """`(S, 2)` int64: first frame and frame after the last one of each shot."""
        change = np.array(self._change)
        cuts = [t for t in range(1, len(change)) if _is_cut(change, t)]
        edges = [0, *cuts, len(change)]
        return np.array(list(zip(edges[:-1], edges[1:], strict=True)), dtype=np.int64).reshape(-1, 2)


def find_segments(
    clip: VideoClip, *, look: Callable[[int, np.ndarray], None] | None = None, progress: Progress = silent
) -> np.ndarray:
    """`(S, 2)` int64 shots of a clip: see `CutDetector.segments`. Reads every frame once, 8 at a time.

    Args:
        clip: any clip.
        look: also called with every frame number and `(H, W, 3)` uint8 picture.
        progress: called every 8 frames.
    """
    cuts = CutDetector()
    for start, frames in clip.chunks(_FRAMES_PER_READ):
        for i, picture in enumerate(pictures_to_bytes(frames)):
            cuts.add(picture)
            if look is not None:
                look(start + i, picture)
        progress(start + len(frames), clip.num_frames)
    return cuts.segments()


def _is_cut(change: np.ndarray, t: int) -> bool:
    around = np.concatenate([change[max(1, t - _NEIGHBOURS) : t], change[t + 1 : t + 1 + _NEIGHBOURS]])
    usual = float(np.median(around)) if len(around) else 0.0
    return bool(change[t] > _CHANGE and change[t] > _PROMINENCE * usual)


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    """`(18, 32, 3)` float32 means of blocks, with mean 0 over the picture."""
    height, width = picture.shape[:2]
    rows = np.linspace(0, height, min(_ROWS, height) + 1).astype(int)[:-1]
    columns = np.linspace(0, width, min(_COLUMNS, width) + 1).astype(int)[:-1]
    step = max(1, min(height // (_ROWS * 4), width // (_COLUMNS * 4)))  # a few samples per block are enough
    light = picture[::step, ::step].astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(light, rows // step, axis=0), columns // step, axis=1)
    counts = np.diff(np.append(rows // step, len(light)))[:, None] * np.diff(np.append(columns // step, light.shape[1]))
    means = sums / counts[..., None]
    return means - means.mean(axis=(0, 1))
