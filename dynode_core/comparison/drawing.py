"""A comparison as one picture: the paths in the plane of the motion, the errors, and the faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..ode.subspace import Subspace, fit_subspace
from .codes import EACH_FRAME, SMOOTH, SPLINE, STRAIGHT, TRAJECTORY, CodePaths, squared_norms
from .compare import Comparison
from .morphing import morph_along_spline, morph_straight
from .pictures import ACTUAL, AGAINST_CLIP

COLOURS = {
    TRAJECTORY: "#d1495b",
    SMOOTH: "#e59aa5",
    STRAIGHT: "#3a9d5d",
    SPLINE: "#8a6fb0",
    EACH_FRAME: "#1f2a44",
}
WIDTH_IN, CHART_IN, TILE_IN, DPI = 12.0, 4.6, 1.7, 100
_STRETCH, _FINE = 9, 300


def _stretch(paths: CodePaths) -> np.ndarray:
    """Indices of the consecutive keyframes with the most motion, without a cut among them where possible."""
    kept = np.flatnonzero(paths.kept)
    steps = np.sqrt(squared_norms(paths.truth[1:] - paths.truth[:-1]))
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    best, most = (0, len(kept) - 1), -1.0
    for first in range(len(kept)):
        last = min(first + _STRETCH - 1, len(kept) - 1)
        low, high = kept[first], kept[last]
        crossed = bool(np.any((paths.cuts > paths.times[low]) & (paths.cuts <= paths.times[high])))
        motion = (travelled[high] - travelled[low]) * (1e-6 if crossed else 1.0)
        if motion > most:
            best, most = (first, last), motion
    return np.arange(kept[best[0]], kept[best[1]] + 1)


def _fine(comparison: Comparison, subspace: Subspace, seconds: np.ndarray) -> dict[str, np.ndarray]:
    """`(n, 2)` of each method at many times of the stretch."""
    from ..ode import solve_at_times

    paths = comparison.paths
    observed = paths.trajectory.w_plus, paths.trajectory.times
    lines = {
        STRAIGHT: morph_straight(*observed, seconds, paths.cuts),
        SPLINE: morph_along_spline(*observed, seconds, paths.cuts),
        TRAJECTORY: solve_at_times(paths.trajectory, seconds).w_plus[:],
    }
    # What an edit adds is the same for all of them: the plane shows the motion.
    return {name: subspace.encode(codes).numpy() for name, codes in lines.items()}


def _draw_plane(axes: Any, comparison: Comparison) -> None:
    """The paper's Figure 4 for this clip: kept codes, held-out codes, and what leads from one to the next."""
    paths = comparison.paths
    index = _stretch(paths)
    observed = paths.truth[torch.from_numpy(index)] - paths.change
    subspace = fit_subspace(observed, rank=2)
    if subspace.rank < 2:
        axes.text(0.5, 0.5, "the codes move along a line", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    points = subspace.encode(observed).numpy()
    kept = paths.kept[index]
    seconds = np.linspace(paths.times[index[0]], paths.times[index[-1]], _FINE)
    for name, line in _fine(comparison, subspace, seconds).items():
        style = "--" if name == SPLINE else "-"
        axes.plot(line[:, 0], line[:, 1], style, color=COLOURS[name], linewidth=1.8, label=name)
    axes.scatter(*points[kept].T, s=34, color=COLOURS[EACH_FRAME], zorder=4, label="kept frame")
    axes.scatter(
        *points[~kept].T, s=34, facecolor="white", edgecolor=COLOURS[EACH_FRAME], zorder=5, label="held-out frame"
    )
    axes.set_title(f"plane of the motion, {seconds[0]:.2f} to {seconds[-1]:.2f} s", fontsize=10)
    axes.set_xlabel("axis 1", fontsize=9)
    axes.set_ylabel("axis 2", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_errors(axes: Any, comparison: Comparison) -> None:
    """Held-out error of each method in latent space."""
    names = [name for name in comparison.table if name != EACH_FRAME]
    values = [comparison.table[name]["held_out"] for name in names]
    bars = axes.barh(names, values, color=[COLOURS[name] for name in names])
    axes.bar_label(bars, [f"{value:.4f}" for value in values], padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title("relative error of the codes of held-out frames", fontsize=10)


def _draw_course(axes: Any, comparison: Comparison) -> None:
    """Error of each held-out frame over time."""
    held = ~comparison.paths.kept
    times = comparison.paths.times[held]
    for name in (STRAIGHT, SPLINE, TRAJECTORY):
        axes.plot(times, comparison.by_frame[name][held], ".-", markersize=4, linewidth=1.2, color=COLOURS[name])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time (s)", fontsize=9)
    axes.set_title("the same over time", fontsize=10)


def _draw_tiles(figure: Any, comparison: Comparison) -> None:
    pictures = comparison.pictures
    if pictures is None:
        return
    rows = [ACTUAL, *comparison.table] if pictures.against == AGAINST_CLIP else list(comparison.table)
    panels = figure.subplots(len(rows), len(pictures.shown), squeeze=False)
    for row, name in enumerate(rows):
        label = name
        if name in comparison.table:
            scores = comparison.table[name]
            label += f"\nMSE {scores['mse_held_out'] * 1e3:.2f}e-3\nSSIM {scores['ssim_held_out'] * 100:.1f}"
        for column, axes in enumerate(panels[row]):
            axes.imshow(pictures.tiles[name][column])
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(False)
            if row == 0:
                axes.set_title(f"{comparison.paths.times[pictures.shown[column]]:.2f} s", fontsize=9)
            if column == 0:
                axes.set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center", labelpad=6)


def draw_comparison(comparison: Comparison) -> np.ndarray:
    """One `(H, 1200, 3)` uint8 RGB picture: paths and errors above, below them held-out faces if there are any.

    The plane shows the part of the clip that moves most, along its two strongest axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tiles = 0.0 if comparison.pictures is None else TILE_IN * (1 + len(comparison.table))
    figure = Figure(figsize=(WIDTH_IN, CHART_IN + tiles), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    charts: Any = figure
    if tiles:
        parts: Any = figure.subfigures(2, 1, height_ratios=[CHART_IN, tiles])
        charts = parts[0]
        _draw_tiles(parts[1], comparison)
    panels = charts.subplot_mosaic([["plane", "errors"], ["plane", "course"]])
    _draw_plane(panels["plane"], comparison)
    _draw_errors(panels["errors"], comparison)
    _draw_course(panels["course"], comparison)
    for axes in panels.values():
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
