"""A frame between two frames, by optical flow both ways.

DIS flow: Kroeger et al. 2016. Taking the motion of both frames to the time in between and weighting it by how well it
explains the pictures follows softmax splatting (Niklaus and Liu 2020); what only one frame shows (by the
forward-backward check of Sundaram et al. 2010) comes from that frame. The combination is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..layout import LUMA

FLOW_SIDE_PX = 768
"""Flow is estimated on frames shrunk to this longer side; motion is smooth enough for that."""
_ERROR_WEIGHT = 12.0
"""How fast trust in a motion falls with its photometric error (in [0, 1]): e^-12 at the full range."""
_OCCLUDED_WEIGHT = 0.05
_CUT_ERROR, _CUT_CONSISTENT = 0.04, 0.3
"""Across cuts of real footage 2 to 6 % of the pixels return from their round trip; within shots over 80 %."""
_NEARBY_FACTOR, _NEARBY_MARGIN = 1.3, 1.5
_CONSTANT_FACTOR, _CONSTANT_MARGIN = 2.5, 4.0
"""Another motion is taken if its error (8-bit levels) times the factor plus the margin is below the error at hand: that
is easy for a motion of the surroundings, hard for no motion or the median one."""


@dataclass(frozen=True)
class FlowPair:
    """Motion between two frames A and B at the size at which it was estimated, (h, w)."""

    forward: np.ndarray
    """`(h, w, 2)` float32 px: pixel p of A is at p + forward[p] in B."""
    backward: np.ndarray
    """`(h, w, 2)` float32 px: the same from B to A."""
    trust_forward: np.ndarray
    """`(h, w)` float32 in (0, 1]: how well the motion explains A."""
    trust_backward: np.ndarray
    """`(h, w)` float32 in (0, 1]."""
    grey_a: np.ndarray
    """`(h, w)` float32, 0 to 255."""
    grey_b: np.ndarray
    """`(h, w)` float32, 0 to 255."""
    is_cut: bool
    """The frames have so little in common that nothing can be moved."""


def estimate_flow(frame_a: Tensor, frame_b: Tensor) -> FlowPair:
    """Motion between two `(H, W, 3)` float frames in [0, 1]."""
    grey_a, grey_b = _grey(frame_a), _grey(frame_b)
    forward, backward = _dense_flow(grey_a, grey_b), _dense_flow(grey_b, grey_a)
    error_a, consistent_a = _explain(grey_a, grey_b, forward, backward)
    error_b, consistent_b = _explain(grey_b, grey_a, backward, forward)
    share_consistent = 0.5 * float(consistent_a.mean() + consistent_b.mean())
    mean_error = 0.5 * float(error_a.mean() + error_b.mean())
    return FlowPair(
        forward=forward,
        backward=backward,
        trust_forward=_trust(error_a, consistent_a),
        trust_backward=_trust(error_b, consistent_b),
        grey_a=grey_a.astype(np.float32),
        grey_b=grey_b.astype(np.float32),
        is_cut=mean_error > _CUT_ERROR and share_consistent < _CUT_CONSISTENT,
    )


def frame_between(frame_a: Tensor, frame_b: Tensor, flows: FlowPair, fraction: float) -> Tensor:
    """The frame at `fraction` of the way from A to B.

    Args:
        frame_a: `(H, W, 3)` float32 in [0, 1].
        frame_b: the same.
        flows: of this pair.
        fraction: in (0, 1).

    Returns:
        `(H, W, 3)` float32 in [0, 1]; across a cut the nearer frame.
    """
    import cv2

    if flows.is_cut:
        return frame_a if fraction < 0.5 else frame_b
    height, width = frame_a.shape[:2]
    velocity, share_b = _motion_at(flows, fraction)
    velocity = _best_of_nearby(flows, velocity, fraction)
    small_height, small_width = share_b.shape
    velocity = cv2.resize(velocity, (width, height), interpolation=cv2.INTER_LINEAR)
    velocity *= np.array([width / small_width, height / small_height], dtype=np.float32)
    share_b = cv2.resize(share_b, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    moved_a = _sample(frame_a.numpy(), -fraction * velocity)
    moved_b = _sample(frame_b.numpy(), (1 - fraction) * velocity)
    return torch.from_numpy(np.clip(moved_a + share_b * (moved_b - moved_a), 0, 1))


def _motion_at(flows: FlowPair, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """(`(h, w, 2)` motion from A to B, `(h, w)` share of B in the picture) at the time in between."""
    import cv2

    shape = flows.trust_forward.shape
    moved_a, weight_a = _splat(flows.forward, flows.trust_forward, fraction)
    moved_b, weight_b = _splat(-flows.backward, flows.trust_backward, fraction - 1)
    weight: np.ndarray = weight_a + weight_b
    total: np.ndarray = moved_a + moved_b
    velocity = total / np.maximum(weight, 1e-6)[..., None]
    for size in (9, 33, 129):  # places that nothing moved to take the motion around them
        hole = weight < 1e-3
        if not hole.any():
            break
        around = cv2.blur(weight, (size, size))
        filled = cv2.blur(total, (size, size)) / np.maximum(around, 1e-9)[..., None]
        velocity[hole] = filled[hole]
        weight[hole] = around[hole]
        total = velocity * weight[..., None]
    inside_a = _is_inside(-fraction * velocity)
    inside_b = _is_inside((1 - fraction) * velocity)
    near_a = (1 - fraction) ** 2 * (cv2.blur(weight_a, (3, 3)) + 1e-4) * (inside_a + 1e-4)
    near_b = fraction**2 * (cv2.blur(weight_b, (3, 3)) + 1e-4) * (inside_b + 1e-4)
    share_b = cv2.GaussianBlur(near_b / (near_a + near_b), (0, 0), 1.0)
    assert share_b.shape == shape
    return velocity.astype(np.float32), share_b.astype(np.float32)


def _best_of_nearby(flows: FlowPair, velocity: np.ndarray, fraction: float) -> np.ndarray:
    """Where a motion of the surroundings, the median one, or none at all makes A and B agree better, take that.

    The average of two motions at the edge of an object fits neither; this draws lines of the background along with it.
    """
    import cv2

    height, width = velocity.shape[:2]

    def disagreement(motion: np.ndarray) -> np.ndarray:
        moved_a = _sample(flows.grey_a, -fraction * motion, smooth=False)
        return cv2.GaussianBlur(
            np.abs(moved_a - _sample(flows.grey_b, (1 - fraction) * motion, smooth=False)), (0, 0), 2
        )

    lowest = disagreement(velocity)
    best = velocity.copy()
    step = max(4, max(height, width) // 80)
    shifts = [(dx * reach, dy * reach) for reach in (step, 3 * step) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    constant = (np.zeros(2, np.float32), np.median(velocity.reshape(-1, 2), axis=0))
    candidate: np.ndarray
    for number in range(len(constant) + len(shifts)):
        if number < len(constant):
            factor, margin = _CONSTANT_FACTOR, _CONSTANT_MARGIN
            candidate = np.broadcast_to(constant[number], velocity.shape).astype(np.float32)
        else:
            factor, margin = _NEARBY_FACTOR, _NEARBY_MARGIN
            dx, dy = shifts[number - len(constant)]
            shift = np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float32)
            candidate = cv2.warpAffine(velocity, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        error = disagreement(candidate) * factor + margin
        better = error < lowest
        best[better] = candidate[better]
        lowest = np.minimum(lowest, error)
    return np.stack([cv2.medianBlur(np.ascontiguousarray(best[..., axis]), 5) for axis in (0, 1)], axis=-1)


def _splat(flow: np.ndarray, weight: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Carry `flow` to p + factor * flow[p], spread over the four pixels there.

    Returns:
        (`(h, w, 2)` sum of weight * flow, `(h, w)` sum of weight).
    """
    height, width = weight.shape
    columns, rows = _pixel_grid(height, width)
    x = columns + factor * flow[..., 0]
    y = rows + factor * flow[..., 1]
    left, top = np.floor(x), np.floor(y)
    right_share, bottom_share = x - left, y - top
    left, top = left.astype(np.int32), top.astype(np.int32)
    weighted = (weight, weight * flow[..., 0], weight * flow[..., 1])
    sums = np.zeros((3, height * width))
    for dx, x_share in ((0, 1 - right_share), (1, right_share)):
        for dy, y_share in ((0, 1 - bottom_share), (1, bottom_share)):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = (row * width + column)[inside]
            share = (x_share * y_share)[inside]
            for total, values in zip(sums, weighted, strict=True):
                total += np.bincount(place, weights=share * values[inside], minlength=height * width)
    maps = sums.astype(np.float32).reshape(3, height, width)
    return np.ascontiguousarray(maps[1:].transpose(1, 2, 0)), maps[0]


def _explain(grey: np.ndarray, other: np.ndarray, flow: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(`(h, w)` photometric error in [0, 1], `(h, w)` whether following the flow there and back returns)."""
    import cv2

    error = np.abs(grey.astype(np.float32) - _sample(other.astype(np.float32), flow)) / 255
    round_trip = flow + _sample(back, flow)
    lengths = (flow**2).sum(-1) + (back**2).sum(-1)
    consistent = (round_trip**2).sum(-1) < 0.01 * lengths + 0.5
    return cv2.blur(error, (5, 5)), consistent & _is_inside(flow).astype(bool)


def _trust(error: np.ndarray, consistent: np.ndarray) -> np.ndarray:
    return (np.exp(-_ERROR_WEIGHT * error) * np.where(consistent, 1.0, _OCCLUDED_WEIGHT)).astype(np.float32)


def _dense_flow(grey_a: np.ndarray, grey_b: np.ndarray) -> np.ndarray:
    """`(h, w, 2)` float32 by DIS; frames too small for its pyramid do not move."""
    import cv2

    if min(grey_a.shape) < 16:
        return np.zeros((*grey_a.shape, 2), dtype=np.float32)
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey_a, grey_b, None)  # type: ignore[call-overload]


def _grey(frame: Tensor) -> np.ndarray:
    """`(h, w)` uint8 luma, the longer side at most `FLOW_SIDE_PX`."""
    import cv2

    grey = (frame @ LUMA).mul(255).add(0.5).clamp(0, 255).to(torch.uint8).numpy()
    scale = FLOW_SIDE_PX / max(grey.shape)
    if scale >= 1:
        return grey
    return cv2.resize(grey, (round(grey.shape[1] * scale), round(grey.shape[0] * scale)), interpolation=cv2.INTER_AREA)


def _sample(picture: np.ndarray, offset: np.ndarray, *, smooth: bool = True) -> np.ndarray:
    """`picture` at p + offset[p]: cubic (bilinear unless `smooth`), edges repeated."""
    import cv2

    columns, rows = _pixel_grid(*offset.shape[:2])
    method = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    return cv2.remap(picture, columns + offset[..., 0], rows + offset[..., 1], method, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _pixel_grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, each `(height, width)` float32, not to be written to."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows.setflags(write=False)
    columns.setflags(write=False)
    return columns, rows


def _is_inside(offset: np.ndarray) -> np.ndarray:
    """`(h, w)` float32: 1 where p + offset[p] lies in the frame."""
    height, width = offset.shape[:2]
    columns, rows = _pixel_grid(height, width)
    x, y = columns + offset[..., 0], rows + offset[..., 1]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.float32)
