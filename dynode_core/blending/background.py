"""The source at any time: its own frames where there is one, moved frames in between."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..types import VideoClip
from .flow import FlowPair, estimate_flow, frame_between

SAME_TIME_S = 1e-6
"""Times closer than this to a source frame mean that frame."""
_FRAMES_KEPT = 3


def place_of(times_s: np.ndarray, time_s: float) -> tuple[int, float]:
    """(index of the frame at or before `time_s`, share of the way to the next one in [0, 1)).

    Args:
        times_s: `(T,)` increasing times of frames.
        time_s: times outside are moved to the first or last frame.
    """
    after = int(np.searchsorted(times_s, time_s - SAME_TIME_S))
    if after >= len(times_s):
        return len(times_s) - 1, 0.0
    if after == 0 or abs(times_s[after] - time_s) <= SAME_TIME_S:
        return after, 0.0
    before = after - 1
    return before, float((time_s - times_s[before]) / (times_s[after] - times_s[before]))


def interpolate(values: np.ndarray, index: int, fraction: float) -> np.ndarray:
    """`values[index]` where `fraction` is 0, else the straight line to the next entry."""
    if fraction == 0:
        return values[index]
    return (1 - fraction) * values[index] + fraction * values[index + 1]


class Background:
    """Hands out source frames, at most three of them and one flow kept at a time."""

    def __init__(self, clip: VideoClip, method: str) -> None:
        self._clip, self._method = clip, method
        self._frames: dict[int, Tensor] = {}
        self._flow: tuple[int, FlowPair] | None = None

    def at(self, index: int, fraction: float) -> Tensor:
        """`(H, W, 3)` float32 in [0, 1] at a place from `place_of`; bit by bit the source frame if `fraction` is 0."""
        if fraction == 0 or self._method == "nearest":
            return self._frame(index + (fraction >= 0.5))
        frame_a, frame_b = self._frame(index), self._frame(index + 1)
        if self._flow is None or self._flow[0] != index:
            self._flow = (index, estimate_flow(frame_a, frame_b))
        return frame_between(frame_a, frame_b, self._flow[1], fraction)

    def _frame(self, index: int) -> Tensor:
        if index not in self._frames:
            self._frames[index] = self._clip.read([index])[0]
            while len(self._frames) > _FRAMES_KEPT:
                self._frames.pop(next(iter(self._frames)))
        return self._frames[index]
