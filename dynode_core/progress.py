"""How long work reports itself and is cancelled."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Progress(Protocol):
    """Called by every long step at least once per frame or optimisation step.

    It may raise: that is how a host cancels. Work that holds files open must release them in `finally`.
    """

    def __call__(self, done: int, total: int, preview: np.ndarray | None = None) -> None:
        """Report `done` of `total` units; `preview` is an `(H, W, 3)` uint8 RGB picture."""
        ...


def silent(done: int, total: int, preview: np.ndarray | None = None) -> None:
    """Report to nobody."""


def part_of(progress: Progress, before: int, whole: int) -> Progress:
    """What a part of the work reports to, that begins after `before` units of the `whole`."""

    def report(done: int, total: int, preview: np.ndarray | None = None) -> None:
        progress(before + done, whole, preview)

    return report
