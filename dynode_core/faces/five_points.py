"""Five points of a face, and the similarity that takes them to the template of face embedders."""

from __future__ import annotations

import numpy as np

TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""ArcFace's five points in a 112 px crop, pixel centres at 0: eyes (the left one of the picture first), nose, corners
of the mouth."""

_MESH_EYES = ((33, 133), (263, 362))
_MESH_NOSE, _MESH_MOUTH = 1, (61, 291)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """`(5, 2)` eyes, nose and mouth corners of a `(478, 2)` mesh, in its units."""
    eyes = [landmarks[list(pair)].mean(axis=0) for pair in _MESH_EYES]
    return np.array([*eyes, landmarks[_MESH_NOSE], *landmarks[list(_MESH_MOUTH)]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`(2, 3)` least-squares turn, scale and shift from `(n, 2)` source to target points (Umeyama 1991)."""
    centre_s, centre_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - centre_s, target - centre_t
    u, singular, vt = np.linalg.svd(t.T @ s)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = (singular * signs).sum() / np.square(s).sum()
    return np.column_stack([scale * rotation, centre_t - scale * rotation @ centre_s])
