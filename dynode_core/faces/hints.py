"""Ways in which a person points at a face: a click, a box, a painted mask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


def hint_from_point(x: float, y: float, height: int, width: int) -> np.ndarray:
    """`(1, 4)` box for a click at (x, y), in pixels.

    Raises:
        ValueError: the point lies outside the frame.
    """
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f"The point ({x:g}, {y:g}) lies outside the frame of {width} x {height} px.")
    return np.array([[x, y, x, y]], dtype=np.float64)


def numbers_in(text: str) -> list[float]:
    """The numbers of a text such as "320, 180" or '[{"x": 320, "y": 180}]' (which point editors write), in order."""
    return [float(number) for number in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", text)]


def point_from_text(text: str) -> tuple[float, float] | None:
    """(x, y) of the first two numbers; None for an empty text.

    Raises:
        ValueError: it holds no two numbers.
    """
    numbers = numbers_in(text)
    if not text.strip():
        return None
    if len(numbers) < 2:
        raise ValueError(f'A point is two numbers in pixels, such as "320, 180", but {text!r} was given.')
    return numbers[0], numbers[1]


def hint_from_boxes(boxes: np.ndarray, num_frames: int) -> np.ndarray:
    """`(1, 4)` or `(T, 4)` float64 from a box or one per frame, x0, y0, x1, y1 in pixels; corners in any order.

    Raises:
        ValueError: another shape.
    """
    array = np.atleast_2d(np.asarray(boxes, dtype=np.float64))
    if array.shape not in ((1, 4), (num_frames, 4)):
        raise ValueError(f"One box or {num_frames} boxes of 4 numbers were expected, but the shape is {array.shape}.")
    return np.concatenate([np.minimum(array[:, :2], array[:, 2:]), np.maximum(array[:, :2], array[:, 2:])], axis=1)


def hint_from_mask(mask: Tensor, num_frames: int, height: int, width: int) -> np.ndarray:
    """Boxes around what is painted in a mask, NaN in frames in which nothing is.

    Args:
        mask: `(H, W)`, `(1, H, W)` or `(T, H, W)` in [0, 1]; of any size, it is scaled to the frame.
        num_frames, height, width: of the clip.

    Returns:
        `(1, 4)` or `(T, 4)` float64 pixels.

    Raises:
        ValueError: another shape or number of masks, or nothing is painted in any of them.
    """
    masks = mask.detach().cpu().reshape((-1, *mask.shape[-2:])) if mask.ndim in (2, 3) else mask
    if masks.ndim != 3 or len(masks) not in (1, num_frames):
        raise ValueError(f"One mask or {num_frames} were expected, (n, H, W), but the shape is {tuple(mask.shape)}.")
    boxes = np.full((len(masks), 4), np.nan)
    for t, painted in enumerate(masks > 0.5):
        rows, columns = painted.any(dim=1).nonzero()[:, 0], painted.any(dim=0).nonzero()[:, 0]
        if len(rows):
            boxes[t] = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    if np.isnan(boxes).all():
        raise ValueError("The mask that should point at the face is empty. Paint over the face, or disconnect it.")
    scale = np.array([width / masks.shape[2], height / masks.shape[1]])
    return boxes * np.tile(scale, 2)


def hint_from_core_boxes(value: Any, num_frames: int) -> np.ndarray:
    """`(1, 4)` or `(T, 4)` boxes from ComfyUI's BOUNDING_BOX: a box `{"x", "y", "width", "height"}`, a list of them
    for all frames, or a list of lists, one per frame. The first box of a list counts; NaN where a frame has none.

    Raises:
        ValueError: it is something else, of another number of frames, or holds no box.
    """
    frames = [value] if isinstance(value, Mapping) or not value or isinstance(value[0], Mapping) else value
    if len(frames) not in (1, num_frames):
        raise ValueError(f"One box or {num_frames} were expected, one per frame, but there are {len(frames)}.")
    boxes = np.full((len(frames), 4), np.nan)
    for t, found in enumerate(frames):
        first = found if isinstance(found, Mapping) else next(iter(found), None)
        if first is not None:
            if not {"x", "y", "width", "height"} <= set(first):
                raise ValueError(f"A box has x, y, width and height, but this one has {', '.join(map(str, first))}.")
            boxes[t] = (first["x"], first["y"], first["x"] + first["width"], first["y"] + first["height"])
    if np.isnan(boxes).all():
        raise ValueError("The boxes that should point at the face are empty. Connect some, or disconnect them.")
    return hint_from_boxes(boxes, num_frames)
