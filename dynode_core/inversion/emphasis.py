"""Where in the crop the reconstruction matters: face over background, its features over the rest (ours)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..faces.warp import quad_to_crop_matrices
from ..types import AlignedClip
from .mesh_regions import FACE_OVAL, LEFT_BROW, LEFT_EYE, LIPS, NOSE, RIGHT_BROW, RIGHT_EYE

BACKGROUND_WEIGHT = 0.5
FEATURE_WEIGHT = 2.0
EXPRESSION_WEIGHT = 6.0
"""Eyes and lips: small, and what a viewer watches."""
_BLUR_SHARE = 0.015


def emphasis_map(aligned: AlignedClip, index: int, size: int, expression_weight: float = EXPRESSION_WEIGHT) -> Tensor:
    """`(1, 1, S, S)` float32 weights with mean 1 for the crop of frame `index` at `size` pixels.

    `expression_weight` is that of eyes and lips before the mean is taken out; cheeks have 1.

    Without a face mesh (68 points, or a frame without detection) all places weigh the same.
    """
    landmarks = aligned.track.landmarks[index]
    if not shows_face(aligned, index):
        return torch.ones(1, 1, size, size)
    import cv2

    matrix = quad_to_crop_matrices(aligned.quads[index : index + 1], size)[0]
    points = np.concatenate([landmarks, np.ones((len(landmarks), 1))], axis=1) @ matrix.T
    points = points[:, :2] / points[:, 2:]
    weights = np.full((size, size), BACKGROUND_WEIGHT, np.float32)
    face = cv2.convexHull(points[list(FACE_OVAL)].astype(np.int32))
    cv2.fillConvexPoly(weights, face, 1.0)
    features: list[tuple[tuple[int, ...], float]] = [
        (feature, FEATURE_WEIGHT) for feature in (RIGHT_BROW, LEFT_BROW, NOSE)
    ]
    features += [(feature, expression_weight) for feature in (LEFT_EYE, RIGHT_EYE, LIPS)]
    for feature, weight in features:
        outline = points[list(feature)]
        grown = outline.mean(axis=0) + 1.35 * (outline - outline.mean(axis=0)) * (1.0, 1.3)
        cv2.fillConvexPoly(weights, cv2.convexHull(grown.astype(np.int32)), weight)
    soft = torch.from_numpy(cv2.GaussianBlur(weights, (0, 0), _BLUR_SHARE * size))
    return (soft / soft.mean())[None, None]


def shows_face(aligned: AlignedClip, index: int) -> bool:
    """Whether a face was detected in frame `index` and its mesh is known, be it about, as in profile."""
    return aligned.track.landmarks.shape[1] >= 468 and bool(aligned.track.detected[index])


def has_mesh(aligned: AlignedClip, index: int) -> bool:
    """Whether a face mesh was fitted to frame `index`."""
    return shows_face(aligned, index) and bool(aligned.track.is_fitted[index])
