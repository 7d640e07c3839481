"""The oriented square around a face that FFHQ alignment cuts out, and its smoothing over time.

Source: FFHQ alignment (Karras et al. 2019) as written in STIT (Tzaban et al. 2022): with e2e the vector between the
eyes and e2m the one from their middle to the mouth, the half-axis x is normalise(e2e - J e2m) max(2 |e2e|, 1.8 |e2m|),
where J turns by 90 degrees, y = J x, and the centre is the middle of the eyes + 0.1 e2m.
"""

from __future__ import annotations

import numpy as np

from ..checks import check_finite, check_shape
from .smoothing import smooth_over_time

_LEFT_EYE_68 = (36, 37, 38, 39, 40, 41)
_RIGHT_EYE_68 = (42, 43, 44, 45, 46, 47)
_MOUTH_CORNERS_68 = (48, 54)
# The mesh points at the same places of the face (left and right as seen in the picture).
_LEFT_EYE_478 = (33, 160, 158, 133, 153, 144)
_RIGHT_EYE_478 = (362, 385, 387, 263, 373, 380)
_MOUTH_CORNERS_478 = (61, 291)
# The mesh puts the corners of the mouth 0.34 % of the quad higher than dlib's 68-point predictor does (112 pictures of
# 7 people): without this factor quads come out 0.8 % too small.
_MESH_EYE_TO_MOUTH = 1.014


def eyes_and_mouth(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of the left eye, the right eye (as seen in the picture) and the mouth.

    Args:
        landmarks: `(T, P, 2)` pixels with P = 68 or 478 (468 without irises also fits).

    Returns:
        Three `(T, 2)` float64 arrays, pixels.

    Raises:
        ValueError: another number of landmarks.
    """
    check_shape("landmarks", landmarks, ("T", "P", 2))
    check_finite("landmarks", landmarks)
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape[1] == 68:
        left, right, corners = _LEFT_EYE_68, _RIGHT_EYE_68, _MOUTH_CORNERS_68
        stretch = 1.0
    elif points.shape[1] in (468, 478):
        left, right, corners = _LEFT_EYE_478, _RIGHT_EYE_478, _MOUTH_CORNERS_478
        stretch = _MESH_EYE_TO_MOUTH
    else:
        raise ValueError(
            f"A face should have 68 landmarks or the 478 of the face mesh, but has {points.shape[1]}. "
            "Connect landmarks of the mediapipe face mesh."
        )
    left_eye = points[:, left].mean(axis=1)
    right_eye = points[:, right].mean(axis=1)
    middle = (left_eye + right_eye) * 0.5
    mouth = points[:, corners].mean(axis=1)
    return left_eye, right_eye, middle + (mouth - middle) * stretch


def ffhq_axes(landmarks: np.ndarray, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre c and half-axes x (to the right edge) and y (to the bottom edge) of the FFHQ quad.

    Args:
        landmarks: `(T, P, 2)` pixels, P = 68 or 478.
        scale: 1 gives FFHQ's framing, 1.2 a wider one.

    Returns:
        Three `(T, 2)` float64 arrays, pixels.

    Raises:
        ValueError: wrong landmarks, a scale of 0 or less, or a face whose eyes and mouth coincide.
    """
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"The scale of the crop should be above 0, but is {scale}.")
    left_eye, right_eye, mouth = eyes_and_mouth(landmarks)
    eyes = (left_eye + right_eye) * 0.5
    eye_to_eye = right_eye - left_eye
    eye_to_mouth = mouth - eyes
    x = eye_to_eye - eye_to_mouth[:, ::-1] * (-1, 1)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if (length < 1e-9).any():
        frame = int(np.argmin(length))
        raise ValueError(f"The landmarks of frame {frame} have no extent: eyes and mouth lie on one point.")
    reach = np.maximum(np.linalg.norm(eye_to_eye, axis=1) * 2.0, np.linalg.norm(eye_to_mouth, axis=1) * 1.8)
    x = x / length * (reach * scale)[:, None]
    y = x[:, ::-1] * (-1, 1)
    return eyes + eye_to_mouth * 0.1, x, y


def axes_to_quads(center: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(T, 4, 2)` corners TL, BL, BR, TR of centre and half-axes, each `(T, 2)`."""
    return np.stack([center - x - y, center - x + y, center + x + y, center + x - y], axis=1)


def quads_to_axes(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and half-axes, each `(T, 2)`, of the parallelogram closest to each of `(T, 4, 2)` quads."""
    top_left, bottom_left, bottom_right, top_right = np.moveaxis(np.asarray(quads, dtype=np.float64), 1, 0)
    center = (top_left + bottom_left + bottom_right + top_right) * 0.25
    x = (bottom_right + top_right - top_left - bottom_left) * 0.25
    y = (bottom_left + bottom_right - top_left - top_right) * 0.25
    return center, x, y


def ffhq_quads(landmarks: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """`(T, 4, 2)` float64 corners TL, BL, BR, TR in pixels of the FFHQ crop of each face; arguments as `ffhq_axes`.

    Convention: the quad has the same pixel convention as `landmarks`.
    """
    return axes_to_quads(*ffhq_axes(landmarks, scale))


def quad_sides_px(quads: np.ndarray) -> np.ndarray:
    """`(T,)` float64: geometric mean of width and height of each of `(T, 4, 2)` quads, in pixels."""
    _, x, y = quads_to_axes(quads)
    return 2.0 * np.sqrt(np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))


def smooth_quads(quads: np.ndarray, center_sigma: float = 1.0, axes_sigma: float = 3.0) -> np.ndarray:
    """Smooth centre and half-axes of quads separately over time (STIT's defaults: 1 and 3 frames).

    Args:
        quads: `(T, 4, 2)` pixels, parallelograms in the order TL, BL, BR, TR.
        center_sigma: Gaussian over the centre, in frames; 0 leaves it alone.
        axes_sigma: Gaussian over the axes (size and rotation), in frames.

    Returns:
        `(T, 4, 2)` float64.
    """
    check_shape("quads", quads, ("T", 4, 2))
    check_finite("quads", quads)
    center, x, y = quads_to_axes(quads)
    return axes_to_quads(
        smooth_over_time(center, center_sigma), smooth_over_time(x, axes_sigma), smooth_over_time(y, axes_sigma)
    )
