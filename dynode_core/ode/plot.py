"""A picture of a trajectory: its three strongest axes against time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..spread import spread
from ..types import LatentTrajectory, TrajectorySample
from .plane import solved_states
from .subspace import Subspace, fit_subspace

WIDTH_PX, HEIGHT_PX, _DPI = 1000, 600, 100
_AXES, _POINTS = 3, 600
_OBSERVED, _SOLVED, _EDITED = "#1f2a44", "#2b7bba", "#d1495b"


def _edited_states(
    trajectory: LatentTrajectory, axes: Subspace, sample: TrajectorySample
) -> tuple[np.ndarray, np.ndarray]:
    """The solved path plus what the edit changed, in order of time."""
    order = np.argsort(sample.times, kind="stable")
    order = order[spread(len(order), _POINTS)]
    index, times = torch.from_numpy(order), np.clip(sample.times[order], trajectory.times[0], trajectory.times[-1])
    change = axes.encode(sample.w_plus[index]) - axes.encode(sample.base_w_plus[index])
    return sample.times[order], solved_states(trajectory, axes, times) + change.numpy()


def _shares(trajectory: LatentTrajectory, axes: Subspace) -> np.ndarray:
    """`(r,)` parts of the variance of the codes along each axis."""
    mean = trajectory.w_plus.mean(dim=0)
    total = sum(float((part - mean).norm()) ** 2 for part in trajectory.w_plus.split(256)) / len(trajectory.w_plus)
    return (axes.spread.double() * axes.scale).square().numpy() / max(total, 1e-30)


def _draw_axis(
    axes: Any,
    k: int,
    observed: tuple[np.ndarray, np.ndarray],
    solved: tuple[np.ndarray, np.ndarray],
    edited: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    axes.plot(solved[0], solved[1][:, k], color=_SOLVED, linewidth=1.6, label="solved path")
    size = 18 if len(observed[0]) <= 100 else 6
    axes.scatter(
        observed[0], observed[1][:, k], s=size, color=_OBSERVED, zorder=3, linewidths=0, label="observed codes"
    )
    if edited is not None:
        axes.plot(edited[0], edited[1][:, k], color=_EDITED, linewidth=1.4, linestyle="--", label="edited path")
    axes.grid(True, color="#e3e6eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01, y=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plot_trajectory(trajectory: LatentTrajectory, sample: TrajectorySample | None = None) -> np.ndarray:
    """Observed codes as dots, the solved path as a line, an edited path dashed, along the three strongest axes.

    Args:
        sample: Drawn as the edited path if it carries an edit.
    Returns:
        `(600, 1000, 3)` uint8 RGB.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    subspace = fit_subspace(trajectory.w_plus, rank=_AXES)
    times = np.linspace(float(trajectory.times[0]), float(trajectory.times[-1]), _POINTS)
    observed = trajectory.times, subspace.encode(trajectory.w_plus).numpy()
    solved = times, solved_states(trajectory, subspace, times)
    edited = None
    if sample is not None and sample.w_plus is not sample.base_w_plus:
        edited = _edited_states(trajectory, subspace, sample)
    count = min(_AXES, subspace.rank)
    share = _shares(trajectory, subspace)
    figure = Figure(figsize=(WIDTH_PX / _DPI, HEIGHT_PX / _DPI), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for k, axes in enumerate(panels):
        _draw_axis(axes, k, observed, solved, edited)
        axes.set_ylabel(f"axis {k + 1}\n({share[k]:.0%} of motion)", fontsize=10)
    for cut in trajectory.certificate.get("cuts_s", ()):
        for axes in panels:
            axes.axvline(cut, color="#9aa3b2", linewidth=1.0, linestyle=":")
    panels[-1].set_xlabel("time (s)", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=10)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
