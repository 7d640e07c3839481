"""From a clip to one smooth quad per frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..progress import Progress, silent
from ..types import AlignedClip, FaceTrack, VideoClip
from .detections import Detections, FaceDetector, Search, detect_faces
from .quads import axes_to_quads, ffhq_quads, smooth_quads
from .tracking import Pick, choose_track
from .warp import quad_to_crop_matrices


def smooth_by_segment(quads: np.ndarray, segments: np.ndarray, center_sigma: float, axes_sigma: float) -> np.ndarray:
    """`smooth_quads` within each shot, so that nothing leaks over a cut. `segments`: `(S, 2)` first and end frames."""
    parts = [smooth_quads(quads[start:stop], center_sigma, axes_sigma) for start, stop in segments.tolist()]
    return np.concatenate(parts, axis=0)


def has_face(track: FaceTrack) -> bool:
    """Whether the landmarks are those of a face, and not the corners of a quad that `align_fixed` was given."""
    return track.landmarks.shape[1] > 4


def align_clip(
    clip: VideoClip,
    landmarker: FaceDetector,
    *,
    crop_size: int = 512,
    scale: float = 1.0,
    center_sigma: float = 1.0,
    axes_sigma: float = 3.0,
    pick: Pick = "largest",
    face_index: int = 0,
    hint: np.ndarray | None = None,
    search: Search = "when needed",
    points_path: Path | None = None,
    progress: Progress = silent,
) -> AlignedClip:
    """Find one face in a clip and the FFHQ quad around it in every frame, smoothed over time within each shot.

    Full profiles count as present; `framing.align_as_asked` leaves them out unless they are asked for.

    Args:
        clip: any number of frames, also one.
        landmarker: finds faces in one picture.
        crop_size: side of the crops that are handed on, pixels.
        scale: 1 for the framing of FFHQ, 1.2 for a wider one.
        center_sigma: smoothing of the place of the quad, in frames.
        axes_sigma: smoothing of its size and rotation, in frames.
        pick: which face is number 0 where several are in view.
        face_index: number of the face in that order.
        hint: `(1, 4)` or `(T, 4)` boxes in pixels: the face nearest to them comes first; see `hints`, `choose_track`.
        search: whether to look for small, dark and turned faces too; see `detect_faces`.
        points_path: see `detect_faces`.
        progress: called once per frame.

    Raises:
        ValueError: no face in any frame, or fewer faces than `face_index` asks for.
    """
    detections = detect_faces(clip, landmarker, search=search, points_path=points_path, progress=progress)
    return align_detections(
        clip,
        detections,
        crop_size=crop_size,
        scale=scale,
        center_sigma=center_sigma,
        axes_sigma=axes_sigma,
        pick=pick,
        face_index=face_index,
        hint=hint,
    )


def align_detections(
    clip: VideoClip,
    detections: Detections,
    *,
    crop_size: int = 512,
    scale: float = 1.0,
    center_sigma: float = 1.0,
    axes_sigma: float = 3.0,
    pick: Pick = "largest",
    face_index: int = 0,
    hint: np.ndarray | None = None,
) -> AlignedClip:
    """As `align_clip`, with faces that are known already: of several people, or from another landmarker.

    Raises:
        ValueError: the detections belong to a clip of another length or size, or the face asked for is not there.
    """
    found = (detections.num_frames, detections.height, detections.width)
    if found != (clip.num_frames, clip.height, clip.width):
        raise ValueError(
            f"The landmarks belong to {found[0]} frames of {found[2]} x {found[1]} px, but the clip has "
            f"{clip.num_frames} frames of {clip.width} x {clip.height} px. Connect the landmarks of this clip."
        )
    track = choose_track(detections, clip.frame_times, pick=pick, face_index=face_index, hint=hint)
    quads = smooth_by_segment(ffhq_quads(track.landmarks, scale), detections.segments, center_sigma, axes_sigma)
    return AlignedClip(clip=clip, quads=quads, track=track, crop_size=crop_size)


def align_fixed(
    clip: VideoClip, *, quads: np.ndarray | None = None, crop_size: int = 512, segments: np.ndarray | None = None
) -> AlignedClip:
    """A clip with given quads, or the largest square in the middle: for scenes, birds, objects, all without a face.

    Args:
        clip: any clip.
        quads: `(4, 2)` or `(T, 4, 2)` pixels TL, BL, BR, TR; None: the centre square of the frame.
        crop_size: side of the crops that are handed on, pixels.
        segments: `(S, 2)` shots, as `cuts.find_segments` gives them; None: one.

    Returns:
        An aligned clip whose track has the four corners as landmarks.

    Raises:
        ValueError: quads of another shape, or without area.
    """
    if quads is None:
        half = min(clip.height, clip.width) / 2
        center, x = np.array([[clip.width / 2, clip.height / 2]]), np.array([[half, 0.0]])
        quads = axes_to_quads(center, x, x[:, ::-1])[0]
    quads = np.asarray(quads, dtype=np.float64)
    if quads.shape not in ((4, 2), (clip.num_frames, 4, 2)):
        raise ValueError(
            f"The quad should have shape (4, 2), or one per frame ({clip.num_frames}, 4, 2), but has {quads.shape}."
        )
    quads = np.broadcast_to(quads, (clip.num_frames, 4, 2)).copy()
    quad_to_crop_matrices(quads, crop_size)  # refuses what has no area
    everywhere = np.ones(clip.num_frames, dtype=bool)
    boxes = np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1)
    track = FaceTrack(
        landmarks=quads.copy(),
        boxes=boxes,
        scores=everywhere.astype(np.float32),
        detected=everywhere,
        segments=segments,
    )
    return AlignedClip(clip=clip, quads=quads, track=track, crop_size=crop_size)
