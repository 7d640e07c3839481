"""Read the FACE_LANDMARKS value of ComfyUI's own landmarker, so that either one can feed the alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..progress import Progress, silent
from ..types import VideoClip
from .cuts import find_segments
from .detections import Detections, with_sharpness
from .landmarks import NUM_BLENDSHAPES, Face, pose_from_matrix

_EXPECTED = "A FACE_LANDMARKS value (a dictionary with frames and image_size)"


def detections_from_core(
    value: Mapping[str, Any], clip: VideoClip | None = None, *, progress: Progress = silent
) -> Detections:
    """Faces of all frames from `{"frames": [[face, ...], ...], "image_size": (H, W), ...}`.

    A face is a dictionary with `landmarks_xy` `(478, 2)` pixels and, if present, `blendshapes` (52 by name, in
    mediapipe's order), `transformation_matrix` `(4, 4)` and `score`.

    Args:
        value: what the core node hands out.
        clip: the frames they belong to, to find cuts in; None: all frames are one shot.
        progress: called every 8 frames of `clip`.

    Raises:
        ValueError: it is no such value, or its frames are not those of `clip`.
    """
    if not isinstance(value, Mapping) or "frames" not in value or "image_size" not in value:
        raise ValueError(f"{_EXPECTED} was expected, but a {type(value).__name__} arrived.")
    height, width = (int(size) for size in value["image_size"])
    faces = tuple(tuple(_face(entry, t, height, width) for entry in found) for t, found in enumerate(value["frames"]))
    if not faces:
        raise ValueError(f"{_EXPECTED} of at least one frame was expected, but it holds none.")
    segments = np.array([[0, len(faces)]], dtype=np.int64)
    if clip is not None:
        if clip.num_frames != len(faces):
            raise ValueError(f"The landmarks belong to {len(faces)} frames, but the clip has {clip.num_frames}.")
        judged: list[tuple[Face, ...]] = []

        def judge(frame: int, picture: np.ndarray) -> None:
            judged.append(tuple(with_sharpness(face, picture) for face in faces[frame]))

        segments = find_segments(clip, look=judge, progress=progress)
        faces = tuple(judged)
    return Detections(faces, segments, height, width)


def _face(entry: Mapping[str, Any], frame: int, height: int, width: int) -> Face:
    landmarks = np.asarray(entry["landmarks_xy"], dtype=np.float64)
    if landmarks.ndim != 2 or landmarks.shape[1] != 2 or not np.isfinite(landmarks).all():
        raise ValueError(f"The landmarks of frame {frame} should have shape (478, 2), but have {landmarks.shape}.")
    shapes = entry.get("blendshapes")
    if shapes is not None:
        numbers = list(shapes.values()) if isinstance(shapes, Mapping) else list(shapes)
        shapes = np.array(numbers, dtype=np.float32) if len(numbers) == NUM_BLENDSHAPES else None
    matrix = entry.get("transformation_matrix")
    inside = ((landmarks >= 0) & (landmarks <= (width, height))).all(axis=1).mean()
    score = float(np.clip(entry.get("score", inside), 1e-3, 1.0))
    return Face(landmarks, score, shapes, None if matrix is None else pose_from_matrix(np.asarray(matrix)))
