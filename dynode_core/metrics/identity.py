"""Whether two pictures show the same person: cosine of face embeddings.

Any ArcFace-style ONNX network of 112 px RGB crops serves; the user supplies the file and its name is reported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..faces.five_points import TEMPLATE_112, five_points, similarity

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
PIXELS: dict[str, tuple[Any, Any]] = {
    "ImageNet": (255 * _IMAGENET_MEAN, 255 * _IMAGENET_STD),
    "-1 to 1": (np.float32(127.5), np.float32(127.5)),
    "0 to 255": (np.float32(0), np.float32(1)),
}
"""How embedders want their pixels: what is subtracted from 0...255, and what the rest is divided by."""


class IdentityEmbedder:
    """Unit embeddings of faces.

    Args:
        onnx_path: network with one input `(1, 3, 112, 112)`, RGB.
        pixels: one of `PIXELS`: what it was trained with.
    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown `pixels`.
    """

    def __init__(self, onnx_path: Path, *, pixels: str = "ImageNet") -> None:
        if pixels not in PIXELS:
            raise ValueError(f"pixels should be one of {', '.join(PIXELS)}, but is {pixels!r}.")
        if not onnx_path.is_file():
            raise FileNotFoundError(f"No identity network at {onnx_path}.")
        import cv2

        self.name = onnx_path.stem
        self._shift, self._scale = PIXELS[pixels]
        self._network = cv2.dnn.readNetFromONNX(str(onnx_path))

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """`(D,)` float32 unit vector of the face with mesh `landmarks` `(478, 2)` px in `(H, W, 3)` uint8 RGB."""
        import cv2

        points = five_points(landmarks) - 0.5  # OpenCV counts pixel centres from 0
        crop = cv2.warpAffine(picture, similarity(points, TEMPLATE_112), (112, 112), flags=cv2.INTER_LINEAR)
        values = (crop.astype(np.float32) - self._shift) / self._scale
        self._network.setInput(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))
        embedding = self._network.forward().reshape(-1)
        return embedding / np.linalg.norm(embedding)
