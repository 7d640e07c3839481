"""What a user asks of the alignment: which part of the frame, and whose face."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..checks import check_range
from ..progress import Progress, silent
from ..types import AlignedClip, VideoClip
from .align import align_detections, align_fixed, smooth_by_segment
from .cuts import find_segments
from .detections import Detections, FaceDetector, Search, detect_faces
from .hints import numbers_in
from .profiles import without_profiles
from .quality import LEAST_FOUND, check_found
from .smoothing import fill_missing
from .tracking import Pick

FACE, FACE_WIDE, CENTRE_CROP, CUSTOM_QUAD = "face", "face wide", "centre crop", "custom quad"
FRAMINGS = (FACE, FACE_WIDE, CENTRE_CROP, CUSTOM_QUAD)
WIDE_SCALE = 1.2
CENTER_SIGMA = 1.0
AXES_SIGMA = 3.0
"""STIT's smoothing of the place, and of size and rotation, in frames (Tzaban et al. 2022)."""


@dataclass(frozen=True)
class AlignSettings:
    """How `align_as_asked` works."""

    framing: str = FACE
    """One of `FRAMINGS`: FFHQ's framing of a face, one that is 1.2 times wider, the largest square in the middle of the
    frame, or `quad`."""
    crop_size: int = 512
    """Side of the crops that are handed on, pixels."""
    scale: float = 1.0
    """Widens a face's framing further."""
    smoothing: float = 1.0
    """Of the path of the crop, in units of STIT's: 1 and 3 frames for place and shape."""
    pick: Pick = "largest"
    face_index: int = 0
    search: Search = "when needed"
    """See `detect_faces`. "when needed" becomes "always" where a hint points at a face: it may be a small one beside a
    large one."""
    quad: np.ndarray | None = None
    """`(4, 2)` pixels TL, BL, BR, TR for "custom quad"; None: a square around the hint."""
    least_found: float = LEAST_FOUND
    """See `quality.check_found`; 0 takes any clip in which the face was found once."""
    edit_profiles: bool = False
    """Whether frames in full profile are for inverting and editing too; see `profiles`."""

    @property
    def needs_face(self) -> bool:
        """Whether the framing follows a face."""
        return self.framing in (FACE, FACE_WIDE)

    def __post_init__(self) -> None:
        if self.framing not in FRAMINGS:
            raise ValueError(f"The framing is one of {', '.join(FRAMINGS)}, but is {self.framing!r}.")
        check_range("least_found", self.least_found, 0, 1)


def align_as_asked(
    clip: VideoClip,
    settings: AlignSettings,
    open_landmarker: Callable[[], AbstractContextManager[FaceDetector]],
    *,
    detections: Detections | None = None,
    hint: np.ndarray | None = None,
    points_path: Path | None = None,
    progress: Progress = silent,
) -> AlignedClip:
    """One quad per frame of `clip`.

    Args:
        clip: any clip.
        settings: what is wanted.
        open_landmarker: called only if faces have to be found.
        detections: faces that are known already; None: find them.
        hint: `(1, 4)` or `(T, 4)` boxes x0, y0, x1, y1 in pixels, NaN where there is none; see `hints`.
        points_path: YuNet's file, with which full profiles are found too; see `detect_faces`.
        progress: called for every frame.

    Raises:
        ValueError: the face asked for is not there or found too seldom, or "custom quad" has neither a quad nor a hint,
            or one beside the picture; or the face is in full profile in all frames (`profiles.without_profiles`).
    """
    sigmas = (CENTER_SIGMA * settings.smoothing, AXES_SIGMA * settings.smoothing)
    if not settings.needs_face:
        custom = settings.framing == CUSTOM_QUAD
        if custom and settings.quad is None and hint is None:
            raise ValueError(
                "A custom quad was asked for, but none was given. Give 4 corners (8 numbers) or a box (4 numbers) in "
                "pixels, or point with a box or a mask."
            )
        quads = settings.quad if custom else None
        if custom and quads is None and hint is not None:
            quads = squares_around(hint, clip.num_frames)
        if quads is not None:
            check_on_picture(quads, clip)
        segments = find_segments(clip, progress=progress)
        if quads is not None and quads.ndim == 3:
            quads = smooth_by_segment(quads, segments, *sigmas)
        return align_fixed(clip, quads=quads, crop_size=settings.crop_size, segments=segments)
    if detections is None:
        search = "always" if hint is not None and settings.search == "when needed" else settings.search
        with open_landmarker() as landmarker:
            detections = detect_faces(clip, landmarker, search=search, points_path=points_path, progress=progress)
    aligned = align_detections(
        clip,
        detections,
        crop_size=settings.crop_size,
        scale=settings.scale * (WIDE_SCALE if settings.framing == FACE_WIDE else 1.0),
        center_sigma=sigmas[0],
        axes_sigma=sigmas[1],
        pick=settings.pick,
        face_index=settings.face_index,
        hint=hint,
    )
    check_found(aligned.track, settings.least_found)
    if not settings.edit_profiles:
        aligned = replace(aligned, track=without_profiles(aligned.track, clip.frame_times))
    return aligned


def squares_around(boxes: np.ndarray, num_frames: int) -> np.ndarray:
    """`(T, 4, 2)` quads: the smallest upright squares around `(1, 4)` or `(T, 4)` boxes with the same centres.

    Frames without a box (NaN) take one between their neighbours'.

    Raises:
        ValueError: a box without area.
    """
    boxes = np.broadcast_to(boxes, (num_frames, 4))
    boxes = fill_missing(np.nan_to_num(boxes), np.isfinite(boxes).all(axis=1))
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    if (half <= 0).any():
        raise ValueError(f"The box of frame {int(half.argmin())} has no area. Draw it around what should be cut out.")
    corners = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)], dtype=np.float64)
    return center[:, None] + half[:, None] * corners


def check_on_picture(quads: np.ndarray, clip: VideoClip) -> None:
    """Raise ValueError if one of `(4, 2)` or `(T, 4, 2)` quads lies beside the frames of `clip`."""
    corners = quads.reshape(-1, 4, 2)
    beside = (corners.max(axis=1) <= 0) | (corners.min(axis=1) >= (clip.width, clip.height))
    if beside.any():
        frame = int(np.argmax(beside.any(axis=1)))
        place = f" of frame {frame}" if quads.ndim == 3 else ""
        raise ValueError(
            f"The quad {corners[frame].round(1).tolist()}{place} lies beside the picture, which is "
            f"{clip.width} x {clip.height} pixels. Give corners inside it, or at least on both sides of its edge."
        )


def quad_from_text(text: str) -> np.ndarray | None:
    """`(4, 2)` corners from 8 numbers (x, y of top left, bottom left, bottom right, top right), or the square around a
    box of 4 numbers (left, top, right, bottom), in pixels; None for an empty text.

    Raises:
        ValueError: another number of numbers, or no area.
    """
    if not text.strip():
        return None
    numbers = numbers_in(text)
    if len(numbers) == 4:
        return squares_around(np.array([numbers]), 1)[0]
    if len(numbers) != 8:
        raise ValueError(
            f"A custom quad is 8 numbers (x and y of top left, bottom left, bottom right, top right) or 4 (left, top, "
            f"right, bottom) in pixels, but {text!r} holds {len(numbers)}."
        )
    return np.array(numbers).reshape(4, 2)
