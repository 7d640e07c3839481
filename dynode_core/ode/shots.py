"""The clip as windows of a trained field: each shot moves in a window of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cuts import split_at_cuts


@dataclass(frozen=True)
class Shots:
    """Runs of keyframes between cuts, and the windows that cover [0, 1]. S shots, W windows.

    A shot moves from its first keyframe to its last; between these and the cuts it stands still.
    """

    runs: tuple[slice, ...]
    """Keyframes of each of the S shots."""
    cuts: tuple[float, ...]
    """`S - 1` normalised times."""
    edges: np.ndarray
    """`(W + 1,)` float64 normalised times, increasing."""
    shot: np.ndarray
    """`(W,)` int64: the shot that each window belongs to."""
    moving: np.ndarray
    """`(W,)` bool."""

    @classmethod
    def of(cls, tau: np.ndarray, cuts: tuple[float, ...]) -> Shots:
        """For keyframes at `(K,)` normalised times and cuts, of which those between keyframes count."""
        runs, used = split_at_cuts(tau, cuts)
        bounds = [0.0, *used, 1.0]
        edges, shot, moving = [0.0], [], []
        for number, run in enumerate(runs):
            first, last, high = float(tau[run.start]), float(tau[run.stop - 1]), bounds[number + 1]
            for end, moves in ((first, False), (last, True), (high, False)):
                if end > edges[-1]:
                    edges.append(end)
                    shot.append(number)
                    moving.append(moves)
        return cls(tuple(runs), tuple(used), np.array(edges), np.array(shot), np.array(moving))

    @property
    def trainable(self) -> list[slice]:
        """Runs of at least two keyframes."""
        return [run for run in self.runs if run.stop - run.start > 1]
