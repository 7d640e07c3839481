"""The strength of an edit as a curve over the clip, so that a smile can grow and fade."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..checks import check_finite
from ..code_stream import CodeStream
from ..types import TrajectorySample

SMOOTH, STRAIGHT, STEPS = "smooth", "straight", "steps"
BETWEEN = (SMOOTH, STRAIGHT, STEPS)
"""How the strength gets from one entry of a curve to the next: at rest at both, evenly, or at once."""
LARGEST = 20.0
_ENTRY = re.compile(r"(start|end|-?\d*\.?\d+(?:s|%)?):(-?\d*\.?\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d*\.?\d+")
_HELP = "Write a number such as 0.5, or times and strengths such as '0:0, 2.5s:1, end:0.3' (seconds, %, start, end)."


@dataclass(frozen=True)
class StrengthCurve:
    """Factors on an edit at times of the source clip."""

    entries: tuple[tuple[str, float, float], ...]
    """Kind of time ("s" seconds, "%" share of the span from the first to the last time), time, factor."""
    between: str = SMOOTH

    def at(self, times: np.ndarray) -> np.ndarray:
        """`(N,)` factors at `(N,)` times in seconds; outside the entries the nearest holds.

        Raises:
            ValueError: two entries at one time.
        """
        first, last = float(times.min()), float(times.max())
        seconds = [time if kind == "s" else first + time / 100 * (last - first) for kind, time, _ in self.entries]
        order = np.argsort(seconds, kind="stable")
        knots = np.array(seconds)[order]
        factors = np.array([self.entries[i][2] for i in order])
        if len(knots) == 1:
            return np.full(len(times), factors[0])
        if (np.diff(knots) <= 0).any():
            if last <= first:
                return np.full(len(times), factors[0])
            at = knots[1:][np.diff(knots) <= 0][0]
            raise ValueError(f"The curve has two strengths at {at:g} s. Give each its own time.")
        piece = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(knots) - 2)
        u = np.clip((times - knots[piece]) / (knots[piece + 1] - knots[piece]), 0, 1)
        if self.between == SMOOTH:
            u = u * u * (3 - 2 * u)
        elif self.between == STEPS:
            u = np.floor(u)
        return factors[piece] + u * (factors[piece + 1] - factors[piece])


def parse_curve(text: str, between: str = SMOOTH) -> StrengthCurve:
    """A curve from "0.5", or from "0:0, 2.5s:1, end:0.3".

    Raises:
        ValueError: the text is no curve, or a factor is beyond `LARGEST`.
    """
    if between not in BETWEEN:
        raise ValueError(f"between should be one of {', '.join(BETWEEN)}, but is {between!r}.")
    plain = text.replace(" ", "").strip(",;")
    if _NUMBER.fullmatch(plain):
        return _checked((("s", 0.0, float(plain)),), between)
    entries = []
    for part in re.split(r"[,;\n]+", plain):
        match = _ENTRY.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no part of a strength curve. {_HELP}")
        time, factor = match[1].lower(), float(match[2])
        if time in ("start", "end"):
            entries.append(("%", 0.0 if time == "start" else 100.0, factor))
        elif time.endswith("%"):
            entries.append(("%", float(time[:-1]), factor))
        else:
            entries.append(("s", float(time.removesuffix("s")), factor))
    return _checked(tuple(entries), between)


def listed_factors(values: Sequence[float], count: int) -> np.ndarray:
    """`(count,)` factors from a list: one for each frame, else stretched evenly over the frames.

    Raises:
        ValueError: no values, not finite, or beyond `LARGEST`.
    """
    factors = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(factors) == 0:
        raise ValueError("The list of strengths is empty.")
    check_finite("The list of strengths", factors)
    _check_size(float(np.abs(factors).max()))
    if len(factors) == count:
        return factors
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(factors)), factors)


def edit_over_time(sample: TrajectorySample, factors: np.ndarray, label: str) -> TrajectorySample:
    """The sample with what the edit adds to each frame multiplied by that frame's factor.

    0 is the clip as observed, 1 the edit in full. Codes are computed when they are read.

    Args:
        factors: `(N,)`.
        label: what the report says of it.
    """
    if len(factors) != len(sample.times):
        raise ValueError(f"There are {len(factors)} factors for {len(sample.times)} frames; one for each is needed.")
    if sample.w_plus is sample.base_w_plus:
        return sample
    edited, base = sample.w_plus, sample.base_w_plus
    shares = torch.from_numpy(np.asarray(factors, dtype=np.float32))

    def read(index: Tensor) -> Tensor:
        plain = base[index]
        return plain + shares[index][:, None, None] * (edited[index] - plain)

    codes = CodeStream(len(shares), (int(edited.shape[1]), int(edited.shape[2])), read)
    return replace(sample, w_plus=codes, edits=tuple(f"{name} ({label})" for name in sample.edits))


def _checked(entries: tuple[tuple[str, float, float], ...], between: str) -> StrengthCurve:
    _check_size(max(abs(factor) for _, _, factor in entries))
    return StrengthCurve(entries, between)


def _check_size(largest: float) -> None:
    if largest > LARGEST:
        raise ValueError(
            f"A strength of the curve is {largest:g}: it multiplies the edit, so 1 is the edit in full. Use at most "
            f"{LARGEST:g}."
        )
