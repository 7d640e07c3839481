"""Pictures that show what was found: quads, landmarks, boxes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .landmarks import Face

if TYPE_CHECKING:
    from PIL import ImageDraw

_FOUND = (64, 224, 96)
_INTERPOLATED = (255, 160, 32)
_LEFT_ALONE = (150, 150, 150)
_POINTS = (255, 255, 255)
_PREVIEW_SIDE = 512


def draw_alignment(
    frame: np.ndarray,
    quad: np.ndarray | None,
    landmarks: np.ndarray | None = None,
    detected: bool = True,
    *,
    left_alone: bool = False,
) -> np.ndarray:
    """Draw a quad and landmarks into a copy of a frame: green where a face was detected, orange where interpolated,
    grey where the frame stays as it is.

    Args:
        frame: `(H, W, 3)` uint8, or float in [0, 1].
        quad: `(4, 2)` pixels TL, BL, BR, TR; the edge TL-TR (top of the head) is drawn double. None: no face here.
        landmarks: `(P, 2)` pixels, or None.
        detected: whether the face was found in this frame.
        left_alone: whether the frame is not for editing, as a full profile.

    Returns:
        `(H, W, 3)` uint8.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(_to_bytes(frame))
    draw = ImageDraw.Draw(image)
    line = max(1, round(min(image.size) / 240))
    if landmarks is not None:
        _draw_points(draw, landmarks, line)
    if quad is None:
        return np.array(image)
    colour = _LEFT_ALONE if left_alone else _FOUND if detected else _INTERPOLATED
    corners = [tuple(corner) for corner in np.asarray(quad, dtype=float)]
    draw.line([*corners, corners[0]], fill=colour, width=line, joint="curve")
    draw.line([corners[0], corners[3]], fill=colour, width=2 * line + 1)
    if not detected:
        draw.text((corners[0][0] + 2 * line, corners[0][1] + 2 * line), "interpolated", fill=colour)
    return np.array(image)


def draw_faces(frame: np.ndarray, faces: Iterable[Face]) -> np.ndarray:
    """A small preview, at most 512 px wide or high, of a `(H, W, 3)` uint8 frame with a box around each face: uint8."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(frame)
    scale = min(1.0, _PREVIEW_SIDE / max(image.size))
    if scale < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    for face in faces:
        _draw_points(draw, face.landmarks[::3] * scale, 1)
        x0, y0, x1, y1 = (face.box * scale).tolist()
        draw.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=_FOUND, width=2)
    return np.array(image)


def _draw_points(draw: ImageDraw.ImageDraw, points: np.ndarray, size: int) -> None:
    for x, y in np.floor(np.asarray(points, dtype=float) - (size - 1) / 2).astype(int).tolist():
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=_POINTS)


def _to_bytes(frame: np.ndarray) -> np.ndarray:
    if frame.dtype == np.uint8:
        return np.ascontiguousarray(frame)
    return (np.clip(frame, 0, 1) * 255 + 0.5).astype(np.uint8)
