"""Progress of the command line: one line on stderr that is rewritten, or one line per tenth when stderr is a file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import numpy as np

REDRAW_INTERVAL_S = 0.1


class StepProgress:
    """A `progress.Progress` for one named step; use it as a context manager so that the line is finished."""

    def __init__(self, step: str, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.step = step
        self.seconds = 0.0
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = self._stream.isatty()
        self._start = time.monotonic()
        self._last_drawn = 0.0
        self._last_tenth = -1

    def __enter__(self) -> StepProgress:
        self._start = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.seconds = time.monotonic() - self._start
        if not self._quiet:
            end = f"{self.step:>7}  done in {self.seconds:.1f} s" if kind is None else f"{self.step:>7}  stopped"
            self._stream.write(f"\r\x1b[K{end}\n" if self._live else f"{end}\n")
            self._stream.flush()

    def __call__(self, done: int, total: int, preview: np.ndarray | None = None) -> None:
        now = time.monotonic()
        tenth = 10 * done // max(total, 1)
        if self._quiet or (now - self._last_drawn < REDRAW_INTERVAL_S if self._live else tenth == self._last_tenth):
            return
        self._last_drawn, self._last_tenth = now, tenth
        text = f"{self.step:>7}  {done}/{total}  {now - self._start:.0f} s"
        self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        self._stream.flush()
