"""Weights of a generator that were tuned to a clip, as they travel with its codes: one set, or one for each shot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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

    @property
    def starts_s(self) -> np.ndarray:
        """`(S,)` float64 seconds at which each of `sets` begins; the first is -inf."""
        return np.array([-math.inf, *self.from_s])

    def number_at(self, times_s: np.ndarray) -> np.ndarray:
        """`(N,)` int64: which of `sets` belongs to each of `(N,)` seconds of the clip."""
        return set_number(self.starts_s, times_s)

    def at(self, time_s: float) -> Tuning:
        """The set of one moment, alone."""
        return self if not self.later else Tuning(self.sets[int(self.number_at(np.asarray([time_s]))[0])])

    def equals(self, other: Tuning) -> bool:
        """Whether all weights and times are the same."""
        return self is other or (
            self.from_s == other.from_s
            and all(_same(mine, theirs) for mine, theirs in zip(self.sets, other.sets, strict=True))
        )


def set_starts(tuning: Tuning | None, cuts_s: np.ndarray) -> np.ndarray:
    """`(S,)` float64 seconds at which sets of weights begin that keep apart what `tuning` keeps apart, and the shots
    between `cuts_s`; the first is -inf."""
    known = [-math.inf] if tuning is None else tuning.starts_s
    return np.unique(np.concatenate([known, cuts_s]))


def set_number(starts_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """`(N,)` int64: which of the sets that begin at `(S,)` `starts_s` belongs to each of `(N,)` seconds."""
    return np.searchsorted(starts_s[1:], times_s, side="right")


def with_new_sets(tuning: Tuning | None, starts_s: np.ndarray, found: Mapping[int, Tuning]) -> Tuning | None:
    """Weights with some sets anew, the others as in `tuning`.

    Args:
        starts_s: `(S,)` from `set_starts`.
        found: the new ones by number.
    """
    sets = [found.get(number, tuning_at(tuning, float(start))) for number, start in enumerate(starts_s)]
    if all(one is None for one in sets):
        return None
    weights = [{} if one is None else one.weights for one in sets]
    return Tuning(weights[0], tuple(weights[1:]), tuple(starts_s[1:].tolist()))


def tuning_at(tuning: Tuning | None, time_s: float) -> Tuning | None:
    """The set of one moment, alone, if there are any."""
    return None if tuning is None else tuning.at(time_s)


def first_set(tuning: Tuning | None) -> Tuning | None:
    """The set of the start of the clip, to which its first code belongs, alone."""
    return tuning_at(tuning, -math.inf)


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
