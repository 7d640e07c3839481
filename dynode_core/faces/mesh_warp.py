"""Find every point of a face again in another frame: triangles between landmarks, moved with them (ours).

The triangles are made once, on the landmarks of one frame (the anchor), with two rings around the face, so that chin,
ears and hair line belong to it too. In any other frame each pixel lies in one of the moved triangles and so has a
place in the anchor frame. A triangle that has turned away, or is torn apart like the inside of an opening mouth, shows
nothing that the anchor frame knows: there the `share` goes to 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_finite, check_shape
from .masks import outline_indices

_RINGS = (1.25, 1.8)
"""Rings around the outline of the face, as multiples of its size; nothing is carried beyond the last one."""
_NOSE_TIP = {68: 30, 468: 1}
_MESH = 468
"""The points of the iris, which come after these, move with the gaze and not with the skin."""
_LEAST_PX = 0.008
"""Lengths are compared with this added, in sides of the crop: the trembling of landmarks then tears nothing."""
_SHRUNK = (0.08, 0.3)
"""From the second share of its area in the anchor downwards a place fades; at the first it has gone."""
_TORN = (2.2, 3.6)
"""From this length of a side upwards, against the anchor's, a triangle fades; at the second it has gone."""
_SUBPIXEL_BITS = 4
_SOFTEN_SHARE = 0.02


@dataclass(frozen=True)
class CarriedPlaces:
    """Where the pixels of a crop lie in the anchor's crop."""

    grid: Tensor
    """`(1, S, S, 2)` float32 for `grid_sample` (-1...1, `align_corners=False`)."""
    share: Tensor
    """`(1, S, S)` float32 in [0, 1]: how much of the anchor frame can be seen there."""


class FaceMesh:
    """The triangles of one face.

    Args:
        anchor: `(P, 2)` landmarks in units of the crop's side, origin top-left; P = 478, 468 or 68.
    Raises:
        ValueError: another number of landmarks, NaN, or all on one line.
    """

    def __init__(self, anchor: np.ndarray) -> None:
        from scipy.spatial import Delaunay, QhullError

        check_shape("anchor", anchor, ("P", 2))
        check_finite("anchor", anchor)
        self._count = len(anchor)
        self._anchor = _with_rings(anchor)
        try:
            triangles = Delaunay(self._anchor).simplices
        except QhullError as error:
            raise ValueError("The landmarks lie on one line: no face can be moved with them.") from error
        nose = self._anchor[_NOSE_TIP[min(self._points_used, _MESH)]]
        from_nose = np.linalg.norm(self._anchor[triangles].mean(axis=1) - nose, axis=1)
        self._triangles = triangles[np.argsort(-from_nose)]  # drawn last, on top: what stands out most

    @property
    def _points_used(self) -> int:
        return _MESH if self._count > _MESH else self._count

    def places(self, landmarks: np.ndarray, size: int) -> CarriedPlaces:
        """Where each pixel of a crop of `size` pixels, whose landmarks are `(P, 2)`, lies in the anchor's crop.

        Raises:
            ValueError: another number of landmarks than the anchor's, or NaN.
        """
        import cv2

        check_shape("landmarks", landmarks, (self._count, 2))
        check_finite("landmarks", landmarks)
        here = _with_rings(landmarks)[self._triangles]
        there = self._anchor[self._triangles]
        shares = _seen(self._triangles, there, here)
        maps = _affine_maps(here, there)
        numbers = np.full((size, size), -1, np.float32)
        corners = np.round((here * size - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
        for i in np.argsort(shares > 0, kind="stable"):  # what has turned away is drawn first, below the rest
            cv2.fillConvexPoly(numbers, corners[i], float(i), shift=_SUBPIXEL_BITS)
        chosen = numbers.astype(np.int64)
        outside = chosen < 0
        centre = (np.arange(size) + 0.5) / size
        pixels = np.stack([*np.meshgrid(centre, centre), np.ones((size, size))], axis=-1)
        places = np.einsum("hwij,hwj->hwi", maps[chosen], pixels)
        share = torch.from_numpy(np.where(outside, 0.0, shares[chosen]).astype(np.float32))[None]
        grid = torch.from_numpy((places * 2 - 1).astype(np.float32))[None].clamp(-2, 2)
        return CarriedPlaces(grid, _softened(share, size))


def _with_rings(landmarks: np.ndarray) -> np.ndarray:
    """The landmarks without iris, and the rings around them."""
    outline = landmarks[list(outline_indices(len(landmarks)))]
    centre = outline.mean(axis=0)
    rings = [centre + factor * (outline - centre) for factor in _RINGS]
    return np.concatenate([landmarks[:_MESH], *rings]).astype(np.float64)


def _seen(triangles: np.ndarray, there: np.ndarray, here: np.ndarray) -> np.ndarray:
    """`(M,)` how much of each `(M, 3, 2)` triangle of the anchor can be seen `here`.

    Areas are those of all triangles around a corner: single ones may be so narrow that trembling turns them over.
    """
    area_there, area_here = _signed_area(there), _signed_area(here)
    turn = np.sign(area_there)
    around_there, around_here = (
        np.bincount(triangles.ravel(), np.repeat(area * turn, 3)) for area in (area_there, area_here)
    )
    kept = (around_here / np.maximum(around_there, 1e-12))[triangles].mean(axis=1)
    stretch = ((_sides(here) + _LEAST_PX) / (_sides(there) + _LEAST_PX)).max(axis=1)
    whole = np.clip((_TORN[1] - stretch) / (_TORN[1] - _TORN[0]), 0, 1)
    return np.clip((kept - _SHRUNK[0]) / (_SHRUNK[1] - _SHRUNK[0]), 0, 1) * whole


def _signed_area(triangles: np.ndarray) -> np.ndarray:
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2


def _sides(triangles: np.ndarray) -> np.ndarray:
    """`(M, 3)` lengths."""
    return np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2)


def _affine_maps(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`(M, 2, 3)` maps of the points (x, y, 1) of `(M, 3, 2)` triangles; flat ones go to the middle of their target."""
    edges = np.stack([source[:, 1] - source[:, 0], source[:, 2] - source[:, 0]], axis=2)
    goals = np.stack([target[:, 1] - target[:, 0], target[:, 2] - target[:, 0]], axis=2)
    flat = np.abs(np.linalg.det(edges)) < 1e-10
    edges = np.where(flat[:, None, None], np.eye(2), edges)
    linear = np.where(flat[:, None, None], 0.0, goals @ np.linalg.inv(edges))
    centre_s, centre_t = source.mean(axis=1), target.mean(axis=1)
    shift = centre_t - np.einsum("mij,mj->mi", linear, centre_s)
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def _softened(share: Tensor, size: int) -> Tensor:
    """Soft edges, inwards only: what is not seen stays at 0."""
    radius = max(1, round(_SOFTEN_SHARE * size / 2))
    least = -F.max_pool2d(-share, 2 * radius + 1, stride=1, padding=radius)
    return F.avg_pool2d(least, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
