"""Find faces of any size and rotation as boxes: mediapipe's box detector over a pyramid of tiles."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .landmarks import Face
from .mediapipe_task import MediapipeTask

_MODEL_IN_TASK = "face_detector.tflite"
_SMALLEST_IN_TILE = 0.18
"""The detector sees 128 x 128 pixels: a face should fill this share of a tile to be found."""
_TILE_STEP = 0.6
"""Neighbouring tiles begin this share of a tile apart, and each level of the pyramid is this much smaller."""
_OVERLAP = 0.5
_MAX_ROLL_DEG = 60.0
"""What the detector sees turned further than this is mostly hands; such faces are found in the turned picture."""
_EYES_68, _EYES_478 = ((36, 39, 42, 45), 2), ((33, 133, 362, 263), 2)


@dataclass(frozen=True)
class FaceBox:
    """A square around eyes, nose and mouth that turns with the face. Pixel centres at +0.5."""

    center: tuple[float, float]
    side_px: float
    roll_deg: float
    """> 0: clockwise."""
    score: float
    """Confidence of the detector in [0, 1]."""


def box_of(face: Face) -> FaceBox:
    """The box that the detector would give a face with known landmarks, about."""
    points = face.landmarks
    corners, half = _EYES_68 if len(points) == 68 else _EYES_478
    left, right = points[list(corners[:half])].mean(axis=0), points[list(corners[half:])].mean(axis=0)
    x, y = (face.box[:2] + face.box[2:]) / 2
    roll_deg = float(np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0])))
    return FaceBox((float(x), float(y)), face.size_px, roll_deg, face.score)


class BoxDetector(MediapipeTask):
    """mediapipe's short-range face detector, taken out of a `face_landmarker.task` bundle.

    Args:
        task_path: the bundle.
        min_confidence: boxes below it are left out.

    Raises:
        RuntimeError: mediapipe is missing, or the bundle holds no box detector.
    """

    def __init__(self, task_path: Path, *, min_confidence: float = 0.5) -> None:
        super().__init__(functools.partial(_open, task_path, min_confidence))

    def detect(self, picture: np.ndarray) -> list[FaceBox]:
        """Boxes of one pass over an `(H, W, 3)` uint8 picture."""
        height, width = picture.shape[:2]
        boxes = []
        image = self._image(picture)
        for found in self._task.detect(image).detections:
            area = found.bounding_box
            right_eye, left_eye = found.keypoints[0], found.keypoints[1]  # of the person; seen left and right
            eyes = ((left_eye.x - right_eye.x) * width, (left_eye.y - right_eye.y) * height)
            boxes.append(
                FaceBox(
                    (area.origin_x + area.width / 2, area.origin_y + area.height / 2),
                    float(np.sqrt(area.width * area.height)),
                    float(np.degrees(np.arctan2(eyes[1], eyes[0]))),
                    float(found.categories[0].score),
                )
            )
        return boxes

    def search(self, picture: np.ndarray, min_face_px: float) -> list[FaceBox]:
        """Boxes of faces of `min_face_px` and more, best first, each face once.

        The picture is covered with tiles of several sizes, and is also looked at as a whole on its sides and upside
        down: where that gives a better score, the face is upside down and not a strange upright one.
        """
        found = [box for quarters in (1, 2, 3) for box in self._detect_turned(picture, quarters)]
        for x, y, side in pyramid(picture.shape[0], picture.shape[1], min_face_px):
            for box in self.detect(picture[y : y + side, x : x + side]):
                if abs(box.roll_deg) <= _MAX_ROLL_DEG:
                    found.append(FaceBox((box.center[0] + x, box.center[1] + y), box.side_px, box.roll_deg, box.score))
        return distinct_boxes(found)

    def _detect_turned(self, picture: np.ndarray, quarters: int) -> list[FaceBox]:
        """Boxes of the picture turned counter-clockwise by `quarters` right angles, in coordinates of the picture."""
        height, width = picture.shape[:2]
        boxes = []
        for box in self.detect(np.rot90(picture, quarters)):
            x, y = box.center
            place = {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[quarters]
            roll_deg = (box.roll_deg + 90.0 * quarters + 180.0) % 360.0 - 180.0
            if abs(box.roll_deg) <= _MAX_ROLL_DEG:
                boxes.append(FaceBox(place, box.side_px, roll_deg, box.score))
        return boxes


def pyramid(height: int, width: int, min_face_px: float) -> Iterator[tuple[int, int, int]]:
    """Squares (x, y, side) that cover a picture at every scale down to that of the smallest face."""
    side = float(max(height, width))
    while True:
        for y in _starts(height, side):
            for x in _starts(width, side):
                yield x, y, int(side)
        if side * _SMALLEST_IN_TILE <= min_face_px:
            return
        side *= _TILE_STEP


def _starts(length: int, side: float) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side * _TILE_STEP))) + 1
    return np.linspace(0, length - side, count).astype(int).tolist()


def distinct_boxes(boxes: list[FaceBox]) -> list[FaceBox]:
    """Best first, without those whose centre lies within half a side of a better one."""
    kept: list[FaceBox] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(_apart(box, other) > _OVERLAP * max(box.side_px, other.side_px) for other in kept):
            kept.append(box)
    return kept


def _apart(a: FaceBox, b: FaceBox) -> float:
    return float(np.hypot(a.center[0] - b.center[0], a.center[1] - b.center[1]))


def _open(task_path: Path, min_confidence: float) -> Any:
    from mediapipe.tasks.python import BaseOptions, vision

    try:
        with zipfile.ZipFile(task_path) as bundle:
            model = bundle.read(_MODEL_IN_TASK)
    except (zipfile.BadZipFile, KeyError) as error:
        raise RuntimeError(
            f"{task_path} holds no {_MODEL_IN_TASK}, which the search for small faces needs. "
            "Use mediapipe's face_landmarker.task, or switch the search off."
        ) from error
    options = vision.FaceDetectorOptions(
        base_options=BaseOptions(model_asset_buffer=model), min_detection_confidence=min_confidence
    )
    return vision.FaceDetector.create_from_options(options)
