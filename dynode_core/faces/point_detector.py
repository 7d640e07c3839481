"""Boxes and five points of faces, also in full profile: YuNet of the OpenCV Zoo (Wu et al. 2023), run by OpenCV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .mediapipe_task import explain_import_failure

_LONG_SIDES_PX = (320, 1280)
"""Pictures are looked at in these sizes: YuNet sees faces of about 10 to 300 px."""
_OVERLAP = 0.3
"""Of two boxes whose intersection is a larger share of their union, the better one is kept."""
_MOST = 64


@dataclass(frozen=True)
class FivePoints:
    """One face. Pixel centres lie at +0.5."""

    points: np.ndarray
    """`(5, 2)` float64 pixels: eyes (the left one of an upright frontal face in the picture first), tip of the nose,
    corners of the mouth in the same order. In a profile the hidden ones lie where they would be seen."""
    box: np.ndarray
    """`(4,)` float64 pixels x0, y0, x1, y1, from the hairline to the chin."""
    score: float
    """Confidence in [0, 1]."""


class PointDetector:
    """Finds faces of any turn to the side, upright ones best.

    Args:
        onnx_path: `face_detection_yunet_2023mar.onnx`; `model_files.find_points` looks for it.
        min_confidence: faces below it are left out, in [0, 1].

    Raises:
        FileNotFoundError: no file at `onnx_path`.
        RuntimeError: OpenCV is missing or has no YuNet, or the file holds another network.
    """

    def __init__(self, onnx_path: Path, *, min_confidence: float = 0.5) -> None:
        if not onnx_path.is_file():
            raise FileNotFoundError(f"There is no face detector at {onnx_path}.")
        try:
            import cv2
        except (ImportError, OSError) as error:
            raise RuntimeError(explain_import_failure("cv2", error)) from error
        if not hasattr(cv2, "FaceDetectorYN"):
            raise RuntimeError(f"OpenCV {cv2.__version__} has no FaceDetectorYN. Install OpenCV 4.9 or newer.")
        network = np.frombuffer(onnx_path.read_bytes(), np.uint8)
        try:
            with _quiet():
                self._detector = cv2.FaceDetectorYN.create(
                    "onnx", network, np.empty(0, np.uint8), (320, 320), min_confidence, _OVERLAP, _MOST
                )
            self._detector.detect(np.zeros((320, 320, 3), np.uint8))
        except TypeError as error:
            raise RuntimeError(f"OpenCV {cv2.__version__} reads no YuNet. Install OpenCV 4.9 or newer.") from error
        except cv2.error as error:
            reason = str(error).strip().partition("\n")[0]
            raise RuntimeError(f"OpenCV cannot use {onnx_path} as YuNet: {reason}") from error

    def detect(self, picture: np.ndarray) -> list[FivePoints]:
        """Faces of an `(H, W, 3)` uint8 RGB picture, best first, each once."""
        longest = max(picture.shape[:2])
        sizes = sorted({min(side, longest) for side in _LONG_SIDES_PX})
        found = [face for size in sizes for face in self._pass(picture, size / longest)]
        kept: list[FivePoints] = []
        for face in sorted(found, key=lambda face: -face.score):
            if all(_overlap(face.box, other.box) <= _OVERLAP for other in kept):
                kept.append(face)
        return kept

    def _pass(self, picture: np.ndarray, scale: float) -> list[FivePoints]:
        """Faces of the picture as seen at `scale` times its size, in its own pixels."""
        import cv2

        height, width = picture.shape[:2]
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        seen = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA) if scale < 1 else picture
        self._detector.setInputSize(shape)
        _, rows = self._detector.detect(np.ascontiguousarray(seen[..., ::-1]))
        back = (width / shape[0], height / shape[1])
        faces = []
        for row in [] if rows is None else rows.astype(np.float64):
            corner, extent, points = row[:2] * back, row[2:4] * back, row[4:14].reshape(5, 2) * back
            faces.append(FivePoints(points, np.concatenate([corner, corner + extent]), float(row[14])))
        return faces


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning of OpenCV 5 that its new engine has no targets, where its log can be set."""
    import cv2

    log = getattr(cv2.utils, "logging", None)
    if log is None:
        yield
        return
    before = log.setLogLevel(log.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        log.setLogLevel(before)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two `(4,)` boxes."""
    sides = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0)
    shared = float(sides.prod())
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-9)
