"""How sharp a face is in its picture, so that frames with motion blur can be told from their neighbours."""

from __future__ import annotations

import numpy as np

_FACE_PX = 96
_MIN_PX = 8


def face_sharpness(picture: np.ndarray, landmarks: np.ndarray) -> float:
    """Mean strength of fine detail over the contrast of the face. Source: ours.

    Detail is the second difference of the green channel at a scale at which the face is about 96 px wide, along the
    direction in which there is less of it, because motion blurs one direction. The number says little by itself;
    compare neighbouring frames.

    Args:
        picture: `(H, W, 3)` uint8.
        landmarks: `(P, 2)` pixels.

    Returns:
        0 or more; 0 where no face of at least 8 px lies in the picture.
    """
    height, width = picture.shape[:2]
    x0, y0 = np.floor(landmarks.min(axis=0)).astype(int).clip(0).tolist()
    x1, y1 = np.minimum(np.ceil(landmarks.max(axis=0)).astype(int), (width, height)).tolist()
    step = max(1, round(min(x1 - x0, y1 - y0) / _FACE_PX))
    rows, columns = (y1 - y0) // step, (x1 - x0) // step
    if min(rows, columns) < _MIN_PX:
        return 0.0
    part = picture[y0 : y0 + rows * step, x0 : x0 + columns * step, 1]
    grey = part.reshape(rows, step, columns, step).mean(axis=(1, 3), dtype=np.float32)
    across = np.abs(grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2]).mean()
    down = np.abs(grey[2:] - 2 * grey[1:-1] + grey[:-2]).mean()
    return float(min(across, down) / max(float(grey.std()), 1.0))
