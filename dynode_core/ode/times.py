"""Which times of the clip to show, and how fast to play them.

Convention: times are seconds of the source clip. Factors work on the frame index, so the frames of a clip with varying
frame times stay among the outputs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from ..checks import check_increasing
from ..clip import exact_fps
from ..types import LatentTrajectory
from .remap import CURVES, RemapTimes

PLAYBACKS = ("same speed", "slow motion")
"""Same speed: more frames raise the rate. Slow motion: the rate of the source stays, so the clip lasts longer."""
MOST_OUTPUTS = 1_000_000


class TimeChoice(Protocol):
    """One way to choose output times."""

    def times(self, frame_times: np.ndarray, fps: Fraction) -> tuple[np.ndarray, Fraction]:
        """`(T,)` frame times (s) and rate of the source to `(N,)` output times and the rate that keeps its speed."""
        ...


def _at_index(frame_times: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Times at fractional frame indices."""
    return np.interp(index, np.arange(len(frame_times)), frame_times)


@dataclass(frozen=True)
class SameTimes:
    """The frames of the source."""

    def times(self, frame_times: np.ndarray, fps: Fraction) -> tuple[np.ndarray, Fraction]:
        return frame_times.copy(), fps


@dataclass(frozen=True)
class FactorTimes:
    """`factor` outputs per frame gap: factor * (T - 1) + 1 for a whole factor, ending on the last frame."""

    factor: Fraction

    def times(self, frame_times: np.ndarray, fps: Fraction) -> tuple[np.ndarray, Fraction]:
        if self.factor <= 0:
            raise ValueError(f"The factor should be larger than 0, but is {float(self.factor):g}.")
        count = int((len(frame_times) - 1) * self.factor) + 1
        _check_count(count)
        index = np.arange(count) / float(self.factor)
        return _at_index(frame_times, index), fps * self.factor


@dataclass(frozen=True)
class CountTimes:
    """`count` outputs, evenly spaced over the frame index, from the first frame to the last."""

    count: int

    def times(self, frame_times: np.ndarray, fps: Fraction) -> tuple[np.ndarray, Fraction]:
        _check_count(self.count)
        gaps = len(frame_times) - 1
        if self.count == 1 or gaps == 0:
            return np.full(self.count, frame_times[0]) if gaps else frame_times[:1].copy(), fps
        return _at_index(frame_times, np.linspace(0, gaps, self.count)), fps * Fraction(self.count - 1, gaps)


@dataclass(frozen=True)
class FpsTimes:
    """A fixed rate in frames per second of source time, from the first frame to the last."""

    fps: Fraction

    def times(self, frame_times: np.ndarray, fps: Fraction) -> tuple[np.ndarray, Fraction]:
        if self.fps <= 0:
            raise ValueError(f"The rate should be larger than 0 fps, but is {float(self.fps):g}.")
        span = float(frame_times[-1] - frame_times[0])
        count = int(span * float(self.fps) + 1e-6) + 1
        _check_count(count)
        return np.minimum(frame_times[0] + np.arange(count) / float(self.fps), frame_times[-1]), self.fps


@dataclass(frozen=True)
class ListTimes:
    """Times in seconds, each later than the one before."""

    seconds: tuple[float, ...]

    def times(self, frame_times: np.ndarray, fps: Fraction) -> tuple[np.ndarray, Fraction]:
        times = np.asarray(self.seconds, dtype=np.float64)
        check_increasing("The list of times", times)
        return times, fps


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_OUTPUTS:
        raise ValueError(f"The number of output frames should be 1 to {MOST_OUTPUTS}, but would be {count}.")


_NUMBER = r"(\d+(?:\.\d*)?|\.\d+|\d+/\d+)"


def parse_times(spec: str) -> TimeChoice:
    """Read a choice of times: "same", "x4", "120 frames", "60 fps" (also "30000/1001 fps"), "0, 0.1, 0.25" or a curve.

    A curve is one of `CURVES`, with a factor and repeats if wanted: "ping-pong", "ease in x2", "loop x1 3 times".
    Decimal rates are exact ones, see `clip.exact_fps`: at "29.97 fps" the frames of a 30000/1001 clip are met.

    Raises:
        ValueError: None of these.
    """
    text = spec.strip().lower()
    if text in ("same", "same times", ""):
        return SameTimes()
    if match := re.fullmatch(rf"x\s*{_NUMBER}|{_NUMBER}\s*x", text):
        return FactorTimes(Fraction(match.group(1) or match.group(2)))
    if match := re.fullmatch(r"(\d+)\s*frames?", text):
        return CountTimes(int(match.group(1)))
    if match := re.fullmatch(rf"(\d+/\d+|{_NUMBER})\s*fps", text):
        rate = match.group(1)
        if rate.endswith("/0"):
            raise ValueError(f"The rate {rate} fps divides by 0.")
        return FpsTimes(exact_fps(rate))
    if match := re.fullmatch(rf"({'|'.join(CURVES)})(?:\s+x\s*{_NUMBER})?(?:\s+(\d+)\s*times)?", text):
        return RemapTimes(match.group(1), Fraction(match.group(2) or 1), repeats=int(match.group(3) or 1))
    parts = [part for part in re.split(r"[,;\s]+", text) if part]
    try:
        return ListTimes(tuple(float(part.removesuffix("s")) for part in parts))
    except ValueError:
        raise ValueError(
            "Times should read like 'same', 'x4', '120 frames', '60 fps', '0, 0.1, 0.25' (seconds) or a curve such as "
            f"'ping-pong', but read {spec!r}."
        ) from None


def output_times(
    trajectory: LatentTrajectory, spec: str | TimeChoice = "same", *, playback: str = "same speed"
) -> tuple[np.ndarray, Fraction]:
    """Output times and the rate to play them at.

    Args:
        trajectory: Gives the frame times and the rate of the source.
        spec: What `parse_times` reads, or one of the classes above.
        playback: One of `PLAYBACKS`. A list of times always plays at the rate of the source.
    Returns:
        `(N,)` float64 seconds of the source clip, and frames per second.
    Raises:
        ValueError: Unreadable choice, list that does not increase, no output or too many.
    """
    if playback not in PLAYBACKS:
        raise ValueError(f"playback should be one of {', '.join(PLAYBACKS)}, but is {playback!r}.")
    choice = parse_times(spec) if isinstance(spec, str) else spec
    times, rate = choice.times(np.asarray(trajectory.frame_times, dtype=np.float64), trajectory.fps)
    return times, rate if playback == "same speed" else trajectory.fps
