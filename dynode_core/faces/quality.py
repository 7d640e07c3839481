"""How usable the face is in each frame, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..progress import Progress, silent
from ..types import AlignedClip
from .crop import crop_clip
from .quads import quad_sides_px, quads_to_axes

_CROP_PX = 128
_CHUNK = 16
_PROFILE_DEG, _TILTED_DEG = 45.0, 45.0
_SMALL_PX = 64.0
_CUT_OFF = 0.85
_BLURRED = 0.35
"""Sharpness below this share of the clip's median counts as motion blur."""


@dataclass(frozen=True)
class FrameQuality:
    """One number per frame; T frames."""

    detected: np.ndarray
    """`(T,)` bool."""
    present: np.ndarray
    """`(T,)` bool: False where the face is not in the picture."""
    side_px: np.ndarray
    """`(T,)` float64: side of the quad."""
    roll_deg: np.ndarray
    """`(T,)` float64 rotation of the quad, > 0 clockwise."""
    yaw_deg: np.ndarray
    """`(T,)` float64; NaN where unknown."""
    inside: np.ndarray
    """`(T,)` float64 share of the landmarks inside the frame."""
    sharpness: np.ndarray
    """`(T,)` float64: fine detail of the crop, 1 at the median of the detected frames."""

    def problems(self) -> dict[str, np.ndarray]:
        """Frame numbers by problem; problems that do not occur are left out."""
        seen = self.present
        found = {
            "the face is not in the picture": ~seen,
            "not detected, interpolated": seen & ~self.detected,
            f"profile (turned by more than {_PROFILE_DEG:.0f} degrees)": seen & (np.abs(self.yaw_deg) > _PROFILE_DEG),
            f"head tilted by more than {_TILTED_DEG:.0f} degrees": seen & (np.abs(self.roll_deg) > _TILTED_DEG),
            f"small (crop of less than {_SMALL_PX:.0f} px)": seen & (self.side_px < _SMALL_PX),
            "cut off by the edge of the frame": seen & (self.inside < _CUT_OFF),
            "blurred": seen & (self.sharpness < _BLURRED),
        }
        return {name: np.flatnonzero(frames) for name, frames in found.items() if frames.any()}

    def summary(self) -> str:
        """One line per problem with its frames, for reports; a line that says so if there is none."""
        total = len(self.detected)
        lines = [f"{int(self.detected.sum())} of {total} frames detected."]
        lines += [f"{name}: {len(frames)} ({ranges(frames)})" for name, frames in self.problems().items()]
        return "\n".join(lines)


def frame_quality(aligned: AlignedClip, *, progress: Progress = silent) -> FrameQuality:
    """Measure every frame of an aligned clip. Source: ours. Reads the frames once more, 16 at a time."""
    track, num_frames = aligned.track, aligned.clip.num_frames
    size = (aligned.clip.width, aligned.clip.height)
    inside = ((track.landmarks >= 0) & (track.landmarks <= size)).all(axis=2).mean(axis=1)
    _, x, _ = quads_to_axes(aligned.quads)
    detail = np.zeros(num_frames)
    for start in range(0, num_frames, _CHUNK):
        stop = min(start + _CHUNK, num_frames)
        grey = crop_clip(aligned, range(start, stop), _CROP_PX).mean(dim=1)
        inner = (
            grey[:, 1:-1, 1:-1] * 4 - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
        )
        contrast = grey.std(dim=(1, 2)).clamp_min(1e-3)
        detail[start:stop] = (inner.abs().mean(dim=(1, 2)) / contrast).numpy()
        progress(stop, num_frames)
    usual = float(np.median(detail[track.detected])) if track.detected.any() else float(np.median(detail))
    return FrameQuality(
        detected=track.detected,
        present=np.ones(num_frames, dtype=bool) if track.present is None else track.present,
        side_px=quad_sides_px(aligned.quads),
        roll_deg=np.degrees(np.arctan2(x[:, 1], x[:, 0])),
        yaw_deg=np.full(num_frames, np.nan) if track.pose_deg is None else track.pose_deg[:, 0].astype(np.float64),
        inside=inside,
        sharpness=detail / max(usual, 1e-9),
    )


def ranges(frames: np.ndarray, limit: int = 8) -> str:
    """Frame numbers as text, e.g. "3-9, 14"; after `limit` parts "..."."""
    if len(frames) == 0:
        return "none"
    breaks = np.flatnonzero(np.diff(frames) > 1)
    starts, ends = frames[np.r_[0, breaks + 1]], frames[np.r_[breaks, len(frames) - 1]]
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    return ", ".join(parts[:limit]) + (", ..." if len(parts) > limit else "")
