"""An inversion report as one picture: faces, and what was measured over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from .frame_quality import BETWEEN, KEYFRAME, FrameQuality
from .inversion_report import InversionReport, ShownFrame

_DPI, _TILE_IN, _CHART_IN, _LABEL_IN = 100, 1.9, 1.7, 0.75
_INK, _DOT, _HOLLOW = "#1f2a44", "#d1495b", "#3a7ca5"
_CHARTS = (
    ("perceptual", "perceptual distance", "lower is better"),
    ("identity", "identity cosine", "higher is better"),
    ("blendshapes", "expression error", "lower is better"),
    ("editability", "editability", "higher is better"),
)


def draw_report(report: InversionReport) -> np.ndarray:
    """`(H, W, 3)` uint8: clip, reconstruction and probe edit of some keyframes, above four charts."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(report)
    columns = max(1, len(report.shown))
    faces_in = len(rows) * _TILE_IN + 0.35
    width, height = max(9.0, columns * _TILE_IN + _LABEL_IN), faces_in + 2 * (_CHART_IN + 0.75)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for r, (label, tiles) in enumerate(rows):
        y = 1 - (0.35 + (r + 1) * _TILE_IN) / height
        figure.text(0.012, y + 0.5 * _TILE_IN / height, label, rotation=90, va="center", fontsize=10, color=_INK)
        for c, tile in enumerate(tiles):
            box = ((_LABEL_IN / 2 + c * _TILE_IN) / width, y, _TILE_IN / width * 0.98, _TILE_IN / height * 0.98)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            if tile is not None:
                axes.imshow(tile, interpolation="antialiased")
            if r == 0:
                axes.set_title(_caption(report.shown[c].quality), fontsize=8, color=_INK, pad=3)
    for i, (column, title, hint) in enumerate(_CHARTS):
        left, top = (0.07 if i % 2 == 0 else 0.57), faces_in + 0.45 + (i // 2) * (_CHART_IN + 0.7)
        axes = figure.add_axes((left, 1 - (top + _CHART_IN) / height, 0.4, _CHART_IN / height))
        _draw_chart(axes, report, column, f"{title} ({hint})")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _rows(report: InversionReport) -> list[tuple[str, list[np.ndarray | None]]]:
    def column(pick: Any) -> list[np.ndarray | None]:
        return [pick(shown) for shown in report.shown]

    rows = [("clip", column(lambda s: s.crop)), ("codes", column(lambda s: s.image))]
    edited = column(_edited)
    return rows + ([(report.probe, edited)] if any(tile is not None for tile in edited) else [])


def _edited(shown: ShownFrame) -> np.ndarray | None:
    return shown.edited


def _caption(frame: FrameQuality) -> str:
    """Two or three figures above a face."""
    parts = [f"{frame.time_s:.2f} s"]
    if not np.isnan(frame.identity):
        parts.append(f"id {frame.identity:.2f}")
    if not np.isnan(frame.perceptual):
        parts.append(f"p {frame.perceptual:.3f}")
    return "  ".join(parts)


def _draw_chart(axes: Any, report: InversionReport, column: str, title: str) -> None:
    axes.set_title(title, fontsize=9, color=_INK)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, linewidth=0.6)
    drawn = False
    for kind, face, label in ((KEYFRAME, _DOT, "keyframes"), (BETWEEN, "white", "between, by the trajectory")):
        frames = [f for f in report.frames if f.kind == kind and not np.isnan(getattr(f, column))]
        if frames:
            drawn = True
            edge = _DOT if kind == KEYFRAME else _HOLLOW
            axes.plot(
                [f.time_s for f in frames],
                [getattr(f, column) for f in frames],
                "o",
                markersize=4.5,
                markerfacecolor=face,
                markeredgecolor=edge,
                label=label,
            )
            axes.axhline(report.mean(kind, column), color=edge, linewidth=0.8, linestyle="--")
    if not drawn:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, fontsize=9)
        return
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), high + 0.08 * (high - min(0.0, low)))
    axes.set_xlabel("seconds", fontsize=7)
    axes.legend(fontsize=7, loc="best", framealpha=0.6)
