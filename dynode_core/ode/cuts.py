"""Shot changes: where the path jumps instead of moving."""

from __future__ import annotations

import numpy as np
import torch

from .vector_field import PathField

_REACH = 8
_OVER_MEDIAN, _OVER_NEXT = 4.0, 2.0
_FEWEST = 6


def find_cuts(times: np.ndarray, states: np.ndarray) -> tuple[float, ...]:
    """Times (s) of shot changes seen in `(K, r)` states at `(K,)` times: halfway between the codes on either side.

    A step counts if, measured by the time it took, it is 4 times the median step around it and twice the largest other
    one: fast motion has fast neighbours, and one bad code makes two large steps in a row. Fewer than 6 codes: none.
    """
    if len(times) < _FEWEST:
        return ()
    gaps = np.diff(times)
    steps = np.linalg.norm(np.diff(states, axis=0), axis=1) / np.maximum(1.0, gaps / np.median(gaps))
    index = np.arange(len(steps))

    def neighbours(i: np.integer) -> np.ndarray:
        return index[(np.abs(index - i) <= _REACH) & (index != i)]

    large = np.array([steps[i] > _OVER_MEDIAN * np.median(steps[neighbours(i)]) > 0 for i in index])
    found = []
    for i in index[large]:
        others = neighbours(i)
        rivals = others[~large[others] | (np.abs(others - i) == 1)]
        if len(rivals) and steps[i] > _OVER_NEXT * steps[rivals].max():
            found.append(float((times[i] + times[i + 1]) / 2))
    return tuple(found)


def cuts_of_clip(times: np.ndarray, states: np.ndarray, seen: np.ndarray | None) -> tuple[float, ...]:
    """Times (s) at which the path of a clip jumps: changes of shot that were `seen` in the pictures, and within each
    shot those that only the codes show (see `find_cuts`).

    Args:
        times: `(K,)` seconds.
        states: `(K, r)` at these times.
        seen: `(C,)` seconds, or None.
    """
    runs, used = split_at_cuts(times, tuple(() if seen is None else seen.tolist()))
    return tuple(sorted([*used, *(cut for run in runs for cut in find_cuts(times[run], states[run]))]))


def check_cuts(cuts: str | tuple[float, ...]) -> None:
    """Raise ValueError for a choice of cuts that is neither "auto", "none" nor times."""
    if isinstance(cuts, str) and cuts not in ("auto", "none"):
        raise ValueError(f'cuts should be "auto", "none" or times in seconds, but is {cuts!r}.')


def asked_cuts(
    cuts: str | tuple[float, ...], times: np.ndarray, states: np.ndarray, seen: np.ndarray | None
) -> tuple[float, ...]:
    """Times (s) of the cuts that a setting asks for; the other arguments as in `cuts_of_clip`."""
    if cuts == "auto":
        return cuts_of_clip(times, states, seen)
    return () if isinstance(cuts, str) else cuts


def split_at_cuts(times: np.ndarray, cuts: tuple[float, ...]) -> tuple[list[slice], list[float]]:
    """Runs of keyframes between cuts, and the cuts that fall between keyframes (one per gap, the first).

    A keyframe at the very time of a cut belongs to the new shot.
    """
    bounds: list[int] = []
    used: list[float] = []
    for cut in sorted(cuts):
        first = int(np.searchsorted(times, cut, side="left"))
        if 0 < first < len(times) and first not in bounds:
            bounds.append(first)
            used.append(float(cut))
    edges = [0, *bounds, len(times)]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)], used


def cut_positions(field: PathField) -> np.ndarray:
    """Normalised times at which the path of a field jumps."""
    jumps = (field.starts[1:] - field.ends[:-1]).abs().amax(dim=1) > 0
    return field.edges[1:-1].double()[jumps].cpu().numpy() if len(jumps) else torch.empty(0).numpy()
