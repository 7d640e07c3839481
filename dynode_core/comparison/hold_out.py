"""Which keyframes a comparison keeps and which it predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 5
"""Keyframes below which nothing can be said about those left out."""


@dataclass(frozen=True)
class HoldOut:
    """Keep one in `keep_every` keyframes, the first and the last always; predict the others."""

    keep_every: int = 2
    irregular: bool = False
    """Keep as many, but chosen at random: gaps of all lengths."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.keep_every <= 64:
            raise ValueError(f"keep_every should be 2 to 64, but is {self.keep_every}.")

    def kept(self, count: int) -> np.ndarray:
        """`(M,)` int64 increasing indices of the kept among `count` keyframes; 0 and `count` - 1 are among them.

        Raises:
            ValueError: Fewer than `FEWEST` keyframes.
        """
        if count < FEWEST:
            raise ValueError(
                f"A comparison needs at least {FEWEST} keyframes to leave some of them out, but there are {count}. "
                "Invert a longer clip, or more of its frames (keyframe_every)."
            )
        regular = np.union1d(np.arange(0, count, self.keep_every), [count - 1])
        if not self.irregular:
            return regular
        rng = np.random.default_rng(self.seed)
        inner = rng.choice(np.arange(1, count - 1), len(regular) - 2, replace=False)
        return np.sort(np.concatenate([[0], inner, [count - 1]]))
