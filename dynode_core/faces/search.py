"""The second stage of detection: small, dark, tilted and turned faces, on enlarged upright crops.

The landmarker's own detector sees the whole picture on 128 x 128 pixels and its mesh is rejected on profiles. Here
boxes come from a pyramid of tiles, and from YuNet where its file is there; each box is cut out upright in several
framings, and a face counts if the meshes of two of them agree. Where they do not, as in full profile, and YuNet is sure
enough, a mean mesh is posed on its five points. Source: ours.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..layout import bytes_to_pictures, network_to_bytes
from .boxes import BoxDetector, FaceBox, box_of
from .crop import crop
from .landmarks import Face, FaceLandmarker
from .point_detector import FivePoints, PointDetector
from .posed_mesh import posed_face
from .quads import axes_to_quads
from .warp import apply_homography, quad_to_crop_matrices

_CROP_PX = 256
_MAX_BOXES = 16
"""So many of the best boxes of a frame are looked at closely: a bound on the time of a busy picture."""
_FRAMINGS = ((1.1, False), (0.85, False), (1.1, True), (0.85, True))
"""Half side of the crop in sides of the box, and whether dark crops are brightened."""
_LENIENT = 0.05
"""Detection confidence on a crop of which we know already that a face may be there; the fit of the mesh is not judged
by mediapipe's presence score, which is low for profiles, but by agreement."""
_SURE = 0.65
_AGREE_SURE, _AGREE = 0.06, 0.035
"""Largest mean distance of two meshes of the same face, in face sizes: for boxes of at least the score `_SURE`, and for
others. On faces, also profiles, it is about 0.02; on sleeves and lamps 0.05 and more."""
_HOPELESS = 4.0
_SURE_POINTS = 0.6
"""Least score of five points on which a mesh is posed."""
_SMALLEST_SHARE = 0.6
"""Five points are taken from this share of the smallest face that is looked for: a posed mesh may be a bit small."""
_MAX_SHIFT = 0.45
_MAX_GROWTH = 1.8


class FaceSearch:
    """Finds the faces that one pass over the frame misses. Use as a context manager, or call `close`.

    Args:
        task_path: `face_landmarker.task`.
        points_path: `face_detection_yunet_2023mar.onnx`. None, or an OpenCV that cannot run it (the log says so): faces
            in full profile are not found.
        min_face_px: smallest face (brows to chin, about) that is looked for.

    Raises:
        FileNotFoundError: no file at `points_path`.
        RuntimeError: mediapipe is missing, or the bundle does not hold what is needed.
    """

    def __init__(self, task_path: Path, points_path: Path | None = None, *, min_face_px: float = 36.0) -> None:
        self._min_face_px = min_face_px
        self._points = None if points_path is None else _point_detector(points_path)
        self._posed_frame: np.ndarray | None = None
        self._posed_faces: list[Face] = []
        self._boxes = BoxDetector(task_path)
        self._mesh = FaceLandmarker(task_path, max_faces=2, min_confidence=_LENIENT, min_presence=0.0)

    def close(self) -> None:
        """Free the native models."""
        self._boxes.close()
        self._mesh.close()

    def __enter__(self) -> FaceSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(self, frame: np.ndarray, known: list[Face]) -> list[Face]:
        """Faces of an `(H, W, 3)` uint8 frame that are not among the `known` ones."""
        found: list[Face] = []

        def is_new(face: Face) -> bool:
            return not any(same_face(face, other) for other in (*known, *found))

        for posed in self._posed(frame):
            if posed.size_px >= _SMALLEST_SHARE * self._min_face_px and is_new(posed):
                face = self.refit(frame, posed)
                if (face.fitted or face.score >= _SURE_POINTS) and is_new(face):
                    found.append(face)
        for box in self._boxes.search(frame, self._min_face_px)[:_MAX_BOXES]:
            if not any(_same_place(box, other) for other in (*known, *found)):
                fitted = self.fit(frame, box)
                if fitted is not None and is_new(fitted):
                    found.append(fitted)
        return found

    def near(self, frame: np.ndarray, face: Face) -> Face | None:
        """The `face` of a neighbouring frame in this one, or None if it is not there.

        A posed face is followed by its points alone, as fits that fail take most of the time and a face that changes
        between the two would jitter; see `refit`.
        """
        found = self.fit(frame, box_of(face)) if face.fitted or self._points is None else None
        if found is not None and same_face(found, face):
            return found
        posed = [posed for posed in self._posed(frame) if posed.score >= _SURE_POINTS and same_face(posed, face)]
        return max(posed, key=lambda face: face.score, default=None)

    def forget(self) -> None:
        """Let go of the last frame."""
        self._posed_frame, self._posed_faces = None, []

    def refit(self, frame: np.ndarray, face: Face) -> Face:
        """A posed `face` of this frame with its own mesh, if one fits now; any other face as it is."""
        fitted = None if face.fitted else self.fit(frame, box_of(face))
        return fitted if fitted is not None and same_face(fitted, face) else face

    def _posed(self, frame: np.ndarray) -> list[Face]:
        """At most `_MAX_BOXES` meshes on the five points that YuNet sees, best first.

        Always of the whole frame: the same face comes out smaller in an enlarged part of it, so that a face which is
        followed that way would shrink.
        """
        if self._points is None:
            return []
        if self._posed_frame is not frame:  # asked for again for every face that is followed
            height, width = frame.shape[:2]
            self._posed_faces = _poses(self._points.detect(frame)[:_MAX_BOXES], height, width)
            self._posed_frame = frame
        return self._posed_faces

    def fit(self, frame: np.ndarray, box: FaceBox) -> Face | None:
        """The mesh inside a box, if two framings of it agree; its score is that of the box."""
        limit = _AGREE_SURE if box.score >= _SURE else _AGREE
        tried: list[Face] = []
        for half, brighten in _FRAMINGS:
            face = self._fit_framing(frame, box, half * box.side_px, brighten)
            if face is None or not _same_place(box, face):
                continue
            distances = [_mesh_distance(face, other) for other in tried]
            if distances and min(distances) < limit:
                other = tried[int(np.argmin(distances))]
                return replace(other, landmarks=(face.landmarks + other.landmarks) / 2, score=box.score)
            if distances and min(distances) > _HOPELESS * limit:
                return None
            tried.append(face)
        return None

    def _fit_framing(self, frame: np.ndarray, box: FaceBox, half_px: float, brighten: bool) -> Face | None:
        """The mesh nearest to the middle of one upright crop, in coordinates of the frame."""
        angle = np.radians(box.roll_deg)
        x = half_px * np.array([[np.cos(angle), np.sin(angle)]])
        quad = axes_to_quads(np.array([box.center]), x, x[:, ::-1] * (-1, 1))
        low = np.floor(quad[0].min(axis=0)).astype(int) - 8
        high = np.ceil(quad[0].max(axis=0)).astype(int) + 8
        height, width = frame.shape[:2]
        (x0, y0), (x1, y1) = low.clip(0), np.minimum(high, (width, height))
        if x1 <= x0 or y1 <= y0:
            return None
        local = quad - (x0, y0)
        part = bytes_to_pictures(frame[y0:y1, x0:x1])[None]
        picture = network_to_bytes(crop(part, local, _CROP_PX))[0]
        faces = self._mesh.detect(_brightened(picture) if brighten else picture)
        if not faces:
            return None
        middle = _CROP_PX / 2
        face = min(faces, key=lambda face: float(np.abs((face.box[:2] + face.box[2:]) / 2 - middle).max()))
        to_frame = np.linalg.inv(quad_to_crop_matrices(quad, _CROP_PX)[0])
        landmarks = apply_homography(to_frame, torch.from_numpy(face.landmarks)).numpy()
        pose = None if face.pose_deg is None else face.pose_deg + np.array([0, 0, box.roll_deg], dtype=np.float32)
        return replace(face, landmarks=landmarks, pose_deg=pose, depth=None)  # which was in pixels of the crop


def _point_detector(path: Path) -> PointDetector | None:
    try:
        return PointDetector(path)
    except RuntimeError as reason:
        logging.getLogger(__name__).warning("Faces in full profile can't be looked for here: %s", reason)
        return None


def _poses(seen: list[FivePoints], height: int, width: int) -> list[Face]:
    faces = []
    for one in seen:
        with contextlib.suppress(ValueError):  # no pose fits
            faces.append(posed_face(one, height, width))
    return faces


def same_face(a: Face, b: Face) -> bool:
    """Whether two faces of one frame, or of neighbouring frames, lie in the same place with about the same size."""
    size = max(min(a.size_px, b.size_px), 1e-6)
    distance = np.linalg.norm((a.box[:2] + a.box[2:] - b.box[:2] - b.box[2:]) / 2)
    return bool(distance < _MAX_SHIFT * size and max(a.size_px, b.size_px) < _MAX_GROWTH * size)


def _same_place(box: FaceBox, face: Face) -> bool:
    center = (face.box[:2] + face.box[2:]) / 2
    distance = float(np.linalg.norm(center - box.center))
    ratio = face.size_px / max(box.side_px, 1e-6)
    return distance < _MAX_SHIFT * max(box.side_px, face.size_px) and 1 / _MAX_GROWTH < ratio < _MAX_GROWTH


def _mesh_distance(a: Face, b: Face) -> float:
    return float(np.linalg.norm(a.landmarks - b.landmarks, axis=1).mean() / max(a.size_px, 1e-6))


def _brightened(picture: np.ndarray) -> np.ndarray:
    """Contrast stretched between the 1st and 99th percentile and mid-tones raised."""
    low, high = np.percentile(picture, (1, 99))
    light = ((picture.astype(np.float32) - low) / max(high - low, 1.0)).clip(0, 1)
    gamma = np.log(0.45) / np.log(float(light.mean().clip(0.02, 0.98)))
    return (light ** np.clip(gamma, 0.4, 1.0) * 255).astype(np.uint8)
