"""Hold out keyframes of a clip and predict them: the trajectory, morphing, and frame-by-frame work side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..checks import check_family, check_shape
from ..progress import Progress, silent
from ..types import EditedLatent, InvertedClip, LatentTrajectory
from .codes import METHODS, STRAIGHT, TRAJECTORY, CodePaths, carried_edit, code_paths, compare_codes
from .hold_out import HoldOut
from .pictures import PictureErrors, RenderAt, compare_pictures

_EXACT = 1e-6
"""Relative errors below this one are rounding."""


@dataclass(frozen=True)
class CompareSettings:
    """What is held out, and how many pictures are compared."""

    hold_out: HoldOut = field(default_factory=HoldOut)
    pictures: int = 8
    """Frames compared as pictures at observed and at held-out times each, at most; 1 to 1000."""

    def __post_init__(self) -> None:
        if not 1 <= self.pictures <= 1000:
            raise ValueError(f"pictures should be 1 to 1000, but is {self.pictures}.")


@dataclass(frozen=True)
class Comparison:
    """What a comparison found."""

    paths: CodePaths
    table: dict[str, dict[str, Any]]
    """By method; see `compare_codes` and `compare_pictures` for the columns."""
    by_frame: dict[str, np.ndarray]
    """By method: `(K,)` relative error of each keyframe's code."""
    pictures: PictureErrors | None
    edits: tuple[str, ...]
    carried: dict[str, float] | None
    """How exactly the edit was carried; None without one, or if it changes nothing."""

    @property
    def ratio_to_linear(self) -> float:
        """Held-out error of the trajectory over that of linear morphing, in latent space; 1 where both are exact."""
        ours, straight = (self.table[name]["held_out"] for name in (TRAJECTORY, STRAIGHT))
        return max(ours, _EXACT) / max(straight, _EXACT)

    def facts(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return {
            "keyframes": len(self.paths.times),
            "kept": np.flatnonzero(self.paths.kept).tolist(),
            "held_out": np.flatnonzero(~self.paths.kept).tolist(),
            "times_s": self.paths.times.tolist(),
            "cuts_s": self.paths.cuts.tolist(),
            "edits": list(self.edits),
            "held_out_trajectory_over_linear": self.ratio_to_linear,
            "carried_edit": self.carried,
            "pictures_compared_with": self.pictures.against if self.pictures else None,
            "methods": self.table,
            "code_error_by_keyframe": {name: errors.tolist() for name, errors in self.by_frame.items()},
        }


def compare_paths(
    inverted: InvertedClip,
    fit: Callable[[InvertedClip], LatentTrajectory],
    settings: CompareSettings | None = None,
    *,
    latent: EditedLatent | None = None,
    render: RenderAt | None = None,
    actual: Callable[[Sequence[int]], Tensor] | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Fit the kept keyframes alone and predict the others, beside linear and spline morphing (paper, section 4.3).

    Frame-by-frame editing, which has inverted and edited every frame, is the last row: in latent space it is what the
    others are measured against.

    Args:
        inverted: K >= 5 codes.
        fit: How the kept codes are fitted, e.g. `lambda part: fit_trajectory(part)`.
        latent: An edit of the first code: then edited codes are compared with those of frame-by-frame editing. It
            is carried in full, without `edit_limit`.
        render: `(n, L, D)` codes and their `(n,)` seconds to `(n, 3, S, S)` in about [-1, 1]; without it there are no
            pictures.
        actual: Indices of keyframes to `(n, 3, S, S)` crops of the clip, to compare pictures with. With an edit it is
            not used: the clip does not show what the edit should look like.
    Raises:
        ValueError: Too few keyframes, or a latent of another clip or generator.
    """
    settings = settings or CompareSettings()
    if latent is not None:
        check_family("The edited latent", latent.family, inverted.family)
        check_shape("The edited latent", latent.w_plus_0, tuple(inverted.w_plus.shape[1:]))
    kept = np.zeros(len(inverted.times), dtype=bool)
    kept[settings.hold_out.kept(len(kept))] = True
    paths = code_paths(inverted, kept, fit, latent)
    table, by_frame = compare_codes(paths)
    pictures = None
    if render is not None:
        truth = None if latent is not None else actual
        pictures = compare_pictures(paths, render, truth, most=settings.pictures, progress=progress)
        table = {name: table[name] | pictures.table[name] for name in METHODS}
    edits = () if latent is None else latent.edits
    carried = None if latent is None else carried_edit(paths)
    return Comparison(paths, table, by_frame, pictures, edits, carried)


def report_text(comparison: Comparison) -> str:
    """The comparison as a table of plain text."""
    kept = int(comparison.paths.kept.sum())
    total, columns = len(comparison.paths.kept), [("kept", "observed"), ("held out", "held_out")]
    lines = [f"{total - kept} of {total} keyframes were held out and predicted from the other {kept}."]
    if comparison.edits:
        lines.append(f"Edited: {', '.join(comparison.edits)}. Measured against the same edit of every frame.")
        lines.append("The edit is compared in full, without edit_limit.")
    lines += [f"WARNING: {warning}" for warning in comparison.paths.trajectory.certificate.get("warnings", ())]
    ours = comparison.ratio_to_linear
    lines.append(f"Held-out error of the trajectory: {ours:.3f} x that of linear morphing (below 1 is better).")
    if comparison.carried is not None:
        found = comparison.carried
        lines.append(
            f"The edit is carried with a cosine of at least {found['cosine']:.5f} and keeps its size within "
            f"{found['size_low']:.4f} to {found['size_high']:.4f}."
        )
    lines += ["", "Codes: relative error; acceleration shows how much the path trembles."]
    head = f"{'method':<22} {'kept':>9} {'held out':>9} {'acceleration':>12} {'inverted':>9} {'edited':>7}"
    lines.append(head)
    for name, row in comparison.table.items():
        errors = " ".join(f"{row[column]:9.5f}" for _, column in columns)
        counts = f"{row['codes_inverted']:9d} {row['codes_edited']:7d}"
        lines.append(f"{name:<22} {errors} {row['acceleration']:12.4f} {counts}")
    if comparison.pictures is not None:
        lines += ["", f"Pictures, against {comparison.pictures.against} (pixels in [0, 1]): MSE x 1e-3 and SSIM x 100."]
        lines.append(f"{'method':<22} {'kept':>9} {'':>7} {'held out':>9} {'':>7}")
        for name, row in comparison.table.items():
            pairs = [f"{row[f'mse_{column}'] * 1e3:9.3f} {row[f'ssim_{column}'] * 100:7.2f}" for _, column in columns]
            lines.append(f"{name:<22} {' '.join(pairs)}")
    return "\n".join(lines)
