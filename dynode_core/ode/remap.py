"""Time-remap curves: which moment of the clip each output frame shows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_MOST = 1_000_000
CURVES = ("linear", "ease in", "ease out", "ease in and out", "ramp", "reverse", "loop", "ping-pong")


@dataclass(frozen=True)
class RemapTimes:
    """A curve over the whole clip, a choice of times for `output_times`.

    One run has as many frames as the source, times `factor`; a ping-pong plays it there and back.
    """

    curve: str = "linear"
    """One of `CURVES`."""
    factor: Fraction = Fraction(1)
    """Output frames per source frame, > 0; the rate grows with it unless played in slow motion."""
    strength: float = 1.0
    """0 is linear, 1 the full curve; how far eases and ramps bend. In [0, 1]."""
    repeats: int = 1
    """Runs of a loop or a ping-pong, 1 to 1000."""
    ramp_speed: float = 4.0
    """Speed at the end of a ramp over that at its beginning, 1/64 to 64."""

    def __post_init__(self) -> None:
        if self.curve not in CURVES:
            raise ValueError(f"curve should be one of {', '.join(CURVES)}, but is {self.curve!r}.")
        for name, value, low, high in (
            ("strength", self.strength, 0.0, 1.0),
            ("repeats", self.repeats, 1, 1000),
            ("ramp_speed", self.ramp_speed, 1 / 64, 64),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} should be between {low:g} and {high:g}, but is {value:g}.")
        if self.factor <= 0:
            raise ValueError(f"The factor should be larger than 0, but is {float(self.factor):g}.")

    def times(self, frame_times: np.ndarray, fps: Fraction) -> tuple[np.ndarray, Fraction]:
        """`(T,)` frame times (s) to `(N,)` output times, which need not increase, and the rate."""
        gaps = len(frame_times) - 1
        count = int(gaps * self.factor) + 1
        if count * self.repeats > _MOST:
            raise ValueError(
                f"The number of output frames should be at most {_MOST}, but would be {count * self.repeats}."
            )
        index = np.minimum(np.arange(count) / float(self.factor), gaps) if gaps else np.zeros(1)
        once = self._bend(index / gaps) * gaps if gaps else index
        return np.interp(self._arrange(once), np.arange(gaps + 1), frame_times), fps * self.factor

    def _bend(self, u: np.ndarray) -> np.ndarray:
        """Progress 0 to 1 of playing time to progress of the clip."""
        ends = {
            "ease in": u**3,
            "ease out": 1 - (1 - u) ** 3,
            "ease in and out": u * u * (3 - 2 * u),
            "ramp": (u + (self.ramp_speed - 1) * u * u / 2) / (1 + (self.ramp_speed - 1) / 2),
        }
        return u + self.strength * (ends[self.curve] - u) if self.curve in ends else u

    def _arrange(self, index: np.ndarray) -> np.ndarray:
        """Frame indices of one run to those of the whole output; a turning frame is shown once."""
        if self.curve == "reverse":
            return index[::-1]
        if self.curve == "loop":
            return np.tile(index, self.repeats)
        if self.curve == "ping-pong":
            round_trip = np.concatenate([index[:-1], index[:0:-1]])
            return np.append(np.tile(round_trip, self.repeats), index[:1])
        return index
