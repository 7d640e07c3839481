"""Whether two pictures show the same person: cosine of face embeddings.

Any ArcFace-style ONNX network of 112 px RGB crops serves; the user supplies the file and its name is reported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""ArcFace's five points in a 112 px crop: eyes (the left one of the picture first), nose, corners of the mouth."""

_MESH_EYES = ((33, 133), (263, 362))
_MESH_NOSE, _MESH_MOUTH = 1, (61, 291)
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


class IdentityEmbedder:
    """Unit embeddings of faces.

    Args:
        onnx_path: network with one input `(1, 3, 112, 112)`, RGB with ImageNet's mean and deviation.
    Raises:
        FileNotFoundError: no such file.
    """

    def __init__(self, onnx_path: Path) -> None:
        if not onnx_path.is_file():
            raise FileNotFoundError(f"No identity network at {onnx_path}.")
        import cv2

        self.name = onnx_path.stem
        self._network = cv2.dnn.readNetFromONNX(str(onnx_path))

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """`(D,)` float32 unit vector of the face with mesh `landmarks` `(478, 2)` px in `(H, W, 3)` uint8 RGB."""
        import cv2

        points = five_points(landmarks)
        crop = cv2.warpAffine(picture, similarity(points, TEMPLATE_112), (112, 112), flags=cv2.INTER_LINEAR)
        values = (crop.astype(np.float32) / 255 - _IMAGENET_MEAN) / _IMAGENET_STD
        self._network.setInput(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))
        embedding = self._network.forward().reshape(-1)
        return embedding / np.linalg.norm(embedding)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """`(5, 2)` eyes, nose and mouth corners of a `(478, 2)` mesh, pixel centres at 0 as OpenCV counts them."""
    eyes = [landmarks[list(pair)].mean(axis=0) for pair in _MESH_EYES]
    return np.array([*eyes, landmarks[_MESH_NOSE], *landmarks[list(_MESH_MOUTH)]]) - 0.5


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`(2, 3)` least-squares turn, scale and shift from `(n, 2)` source to target points (Umeyama 1991)."""
    centre_s, centre_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - centre_s, target - centre_t
    u, singular, vt = np.linalg.svd(t.T @ s)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = (singular * signs).sum() / np.square(s).sum()
    return np.column_stack([scale * rotation, centre_t - scale * rotation @ centre_s])
