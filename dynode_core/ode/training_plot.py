"""A picture of a training run while it goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..types import InvertedClip
from .subspace import Subspace, fit_subspace

WIDTH_PX, HEIGHT_PX, _DPI = 640, 480, 100
_OBSERVED, _SOLVED = "#1f2a44", "#2b7bba"


class TrainingPlot:
    """Draws the two strongest axes of the codes with the solution so far, and the loss."""

    def __init__(self, inverted: InvertedClip) -> None:
        self._times = inverted.times
        self._axes: Subspace = fit_subspace(inverted.w_plus, rank=2)
        self._observed = self._axes.encode(inverted.w_plus).numpy()

    def draw(self, codes: Tensor, losses: Sequence[float], every: int) -> np.ndarray:
        """`(K, L, D)` solved codes and the losses of looks every so many steps: `(480, 640, 3)` uint8 RGB."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH_PX / _DPI, HEIGHT_PX / _DPI), dpi=_DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        count = self._axes.rank
        panels = figure.subplots(count + 1, 1, squeeze=False)[:, 0]
        solved = self._axes.encode(codes).numpy()
        for k in range(count):
            panels[k].plot(self._times, solved[:, k], color=_SOLVED, linewidth=1.4)
            panels[k].scatter(self._times, self._observed[:, k], s=8, color=_OBSERVED, zorder=3, linewidths=0)
            panels[k].set_ylabel(f"axis {k + 1}", fontsize=9)
        panels[count].plot(np.arange(len(losses)) * every, losses, color=_OBSERVED, linewidth=1.2)
        panels[count].set_yscale("log")
        panels[count].set_ylabel("loss", fontsize=9)
        panels[count].set_xlabel("step", fontsize=9)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
