"""Weights of a generator that were tuned to a clip, as they travel with its codes: one set, or one for each shot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .checks import check_finite, check_increasing

Weights = Mapping[str, Tensor]
"""float32, CPU, by the generator's parameter name; empty: those of the generator itself."""


@dataclass(frozen=True)
class Tuning:
    """Weights of a generator that were tuned to a person (`generators.tuning.with_tuning` applies them).

    They are only right for the generator that the codes were found with.
    """

    weights: Weights
    """Of the whole clip, or until the first of `from_s`."""
    later: tuple[Weights, ...] = ()
    """Of the shots after that."""
    from_s: tuple[float, ...] = ()
    """Seconds of the clip at which each of `later` takes over, increasing: changes of shot."""

    def __post_init__(self) -> None:
        if len(self.later) != len(self.from_s):
            raise ValueError(
                f"Every later set of tuned weights needs its time, but there are {len(self.later)} sets and "
                f"{len(self.from_s)} times."
            )
        for weights in self.sets:
            for name, weight in weights.items():
                check_finite(f"The tuned weight {name}", weight)
        if self.from_s:
            check_increasing("from_s", np.asarray(self.from_s))

    @property
    def sets(self) -> tuple[Weights, ...]:
        """All sets in the order of time."""
        return (self.weights, *self.later)

    def number_at(self, times_s: np.ndarray) -> np.ndarray:
        """`(N,)` int64: which of `sets` belongs to each of `(N,)` seconds of the clip."""
        return np.searchsorted(np.asarray(self.from_s, dtype=np.float64), times_s, side="right")

    def at(self, time_s: float) -> Tuning:
        """The set of one moment, alone."""
        return self if not self.later else Tuning(self.sets[int(self.number_at(np.asarray([time_s]))[0])])

    def equals(self, other: Tuning) -> bool:
        """Whether all weights and times are the same."""
        return self is other or (
            self.from_s == other.from_s
            and all(_same(mine, theirs) for mine, theirs in zip(self.sets, other.sets, strict=True))
        )


def tuning_of_shots(sets: Sequence[Tuning | None], starts_s: Sequence[float]) -> Tuning | None:
    """One set for each shot, joined.

    Args:
        sets: of S shots in the order of time, one set each; None where nothing was tuned.
        starts_s: when each begins; the first serves all times before the second.
    """
    if all(tuning is None for tuning in sets):
        return None
    weights = [{} if tuning is None else tuning.weights for tuning in sets]
    return Tuning(weights[0], tuple(weights[1:]), tuple(float(start) for start in starts_s[1:]))


def tuning_at(tuning: Tuning | None, time_s: float) -> Tuning | None:
    """The set of one moment, alone, if there are any."""
    return None if tuning is None else tuning.at(time_s)


def stretches(tuning: Tuning | None, times_s: np.ndarray) -> Iterator[tuple[slice, Tuning | None]]:
    """Successive ones of `(N,)` seconds that share a set of weights, with that set alone."""
    if tuning is None or not tuning.later:
        yield slice(0, len(times_s)), tuning
        return
    number = tuning.number_at(times_s)
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if stop > start:
            yield slice(start, stop), Tuning(tuning.sets[number[start]])


def _same(mine: Weights, theirs: Weights) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(weight, theirs[name]) for name, weight in mine.items())
