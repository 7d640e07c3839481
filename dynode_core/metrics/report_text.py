"""An inversion report in words and numbers."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from .frame_quality import BETWEEN, COLUMNS, KEYFRAME, FrameQuality
from .inversion_report import InversionReport

_HEADINGS = {
    "mse": ("MSE", ".4f"),
    "ssim": ("SSIM", ".3f"),
    "perceptual": ("percept.", ".4f"),
    "identity": ("identity", ".3f"),
    "blendshapes": ("expr.", ".3f"),
    "mouth": ("mouth", ".2f"),
    "eyes": ("eyes", ".2f"),
    "smile": ("smile", ".2f"),
    "pose_deg": ("pose", ".1f"),
    "from_mean": ("size", ".2f"),
    "row_spread": ("rows", ".2f"),
    "editability": ("edit", ".2f"),
}
_WIDTH = 9
LEGEND = (
    "MSE and SSIM of pixels in [0, 1]; percept.: perceptual distance; identity: cosine of face embeddings; expr., "
    "mouth, eyes, smile: errors of mediapipe's blendshapes (mean of all 52, jawOpen, eyeBlink, mouthSmile); pose: "
    "degrees; size: of the code in standard deviations of the generator's own (about 1); rows: how far its rows differ "
    "(0 in W); edit: the probe edit beside the same edit of sampled faces (1: as good)."
)


def report_text(report: InversionReport) -> str:
    """Means, one line per frame, and what it was measured with."""
    names = report.instruments
    lines = [
        f"perceptual distance: {names['perceptual']}; identity: {names['identity']}; "
        f"expressions: {names['expressions']}; probe edit: {report.probe}",
        "",
        _line("", [heading for heading, _ in _HEADINGS.values()]),
    ]
    for kind in (KEYFRAME, BETWEEN):
        count = sum(frame.kind == kind for frame in report.frames)
        if count:
            lines.append(_line(f"mean of {count} {kind}", _values(report.means(kind))))
    lines.append("")
    lines += [_line(_label(frame), _values(asdict(frame))) for frame in report.frames]
    lines.append("")
    if math.isfinite(report.shake):
        lines.append(f"Landmarks shake against the clip by {100 * report.shake:.3f} % of the crop's side.")
    if report.reference is not None:
        lines.append(
            f"The probe edit on sampled faces: it gains {report.reference.gain:.2f}, other blendshapes move by "
            f"{report.reference.leak:.3f}" + _kept(report.reference.kept) + "."
        )
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes), LEGEND])


def report_facts(report: InversionReport) -> dict[str, Any]:
    """The same as plain values for JSON; what was not measured is None."""
    kinds = sorted({frame.kind for frame in report.frames})
    return {
        "instruments": report.instruments,
        "probe": report.probe,
        "means": {kind: _plain(report.means(kind)) for kind in kinds},
        "frames": [_plain(asdict(frame)) for frame in report.frames],
        "shake": _plain({"shake": report.shake})["shake"],
        "probe_on_sampled_faces": None if report.reference is None else _plain(asdict(report.reference)),
        "notes": list(report.notes),
    }


def _kept(kept: float) -> str:
    return "" if math.isnan(kept) else f", identity stays at {kept:.2f}"


def _label(frame: FrameQuality) -> str:
    return f"{frame.frame:5d} {frame.time_s:7.3f} s {'' if frame.kind == KEYFRAME else frame.kind}"


def _values(values: dict[str, Any]) -> list[str]:
    shown = []
    for column in COLUMNS:
        value = values[column]
        shown.append("-" if math.isnan(value) else format(value, _HEADINGS[column][1]))
    return shown


def _line(label: str, cells: list[str]) -> str:
    return f"{label:<26}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
