"""Where a clip must not be mixed over time: at its cuts, and where the face comes and goes."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..types import AlignedClip
from .background import place_of

FADE_S = 0.25
"""So long before the face goes, and after it comes, within a shot, what is put over it fades: nothing pops."""


class Shots:
    """The shots of an aligned clip and the frames in which its face is to be seen."""

    def __init__(self, aligned: AlignedClip) -> None:
        track, num_frames = aligned.track, aligned.clip.num_frames
        self._times = aligned.clip.frame_times
        self._present = track.in_view
        self._shot = track.shot_of(np.arange(num_frames))
        self._run = self._shot * 2 + self._present
        """A number that changes at cuts and where the face comes or goes."""

    def place_of(self, time_s: float) -> tuple[int, float]:
        """As `background.place_of`, but the nearer frame where a cut lies between two."""
        index, fraction = place_of(self._times, time_s)
        if fraction and self._shot[index] != self._shot[index + 1]:
            return (index, 0.0) if fraction < 0.5 else (index + 1, 0.0)
        return index, fraction

    def is_present(self, index: int, fraction: float) -> bool:
        """Whether the face is in the picture at a place: between two frames, in both of them."""
        return bool(self._present[index] and (fraction == 0 or self._present[index + 1]))

    def share_at(self, index: int, fraction: float) -> float:
        """In [0, 1]: how much of the face is put over a place where it is present; 1 at least `FADE_S` from any frame
        of the same shot in which it is not."""
        share = self._shares[index]
        return float(share if fraction == 0 else (1 - fraction) * share + fraction * self._shares[index + 1])

    @cached_property
    def _shares(self) -> np.ndarray:
        """`(T,)` `share_at` of all frames."""
        shares = self._present.astype(np.float64)
        for shot in np.unique(self._shot[~self._present]):
            inside = self._shot == shot
            times, absent = self._times[inside], self._times[inside & ~self._present]
            shares[inside] = np.clip(np.abs(absent[nearest_frames(absent, times)] - times) / FADE_S, 0, 1)
        return shares

    def run_around(self, index: int) -> tuple[int, int]:
        """First frame and frame after the last one of the stretch around `index` without a cut, coming or going."""
        changes = np.flatnonzero(np.diff(self._run)) + 1
        edges = np.concatenate([[0], changes, [len(self._run)]])
        after = int(np.searchsorted(edges, index, side="right"))
        return int(edges[after - 1]), int(edges[after])


def nearest_frames(frame_times: np.ndarray, times: np.ndarray) -> np.ndarray:
    """`(N,)` int64: which of `(T,)` increasing frame times is nearest to each of `(N,)` times."""
    after = np.searchsorted(frame_times, times).clip(0, len(frame_times) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(frame_times[before] - times) < np.abs(frame_times[after] - times), before, after)
