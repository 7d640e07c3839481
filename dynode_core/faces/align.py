"""From a clip to one smooth quad per frame."""

from __future__ import annotations

import numpy as np

from ..progress import Progress, silent
from ..types import AlignedClip, VideoClip
from .detections import FaceDetector, detect_faces
from .quads import ffhq_quads, smooth_quads
from .tracking import Pick, choose_track


def smooth_by_segment(quads: np.ndarray, segments: np.ndarray, center_sigma: float, axes_sigma: float) -> np.ndarray:
    """`smooth_quads` within each shot, so that nothing leaks over a cut. `segments`: `(S, 2)` first and end frames."""
    parts = [smooth_quads(quads[start:stop], center_sigma, axes_sigma) for start, stop in segments.tolist()]
    return np.concatenate(parts, axis=0)


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
    progress: Progress = silent,
) -> AlignedClip:
    """Find one face in a clip and the FFHQ quad around it in every frame, smoothed over time within each shot.

    Args:
        clip: any number of frames, also one.
        landmarker: finds faces in one picture.
        crop_size: side of the crops that are handed on, pixels.
        scale: 1 for the framing of FFHQ, 1.2 for a wider one.
        center_sigma: smoothing of the place of the quad, in frames.
        axes_sigma: smoothing of its size and rotation, in frames.
        pick: which face is number 0 where several are in view.
        face_index: number of the face in that order.
        progress: called once per frame.

    Raises:
        ValueError: no face in any frame, or fewer faces than `face_index` asks for.
    """
    detections = detect_faces(clip, landmarker, progress=progress)
    track = choose_track(detections, clip.frame_times, pick=pick, face_index=face_index)
    quads = smooth_by_segment(ffhq_quads(track.landmarks, scale), detections.segments, center_sigma, axes_sigma)
    return AlignedClip(clip=clip, quads=quads, track=track, crop_size=crop_size)
