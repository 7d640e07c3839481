"""Ways to join a changed picture to its frame. All are linear in the change, so no change gives no change, exactly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .crop_space import box_to_crop
from .region import FaceRegion

MULTIBAND_OUTER = 0.25
"""Multiband only: the part of the mask's ramp over which the result itself fades out; bands meet over the rest."""
_SMALLEST_BAND_PX = 8
_MOST_BANDS = 6

MEMBRANE_SIDE = 64
"""The membrane is so smooth that this many points a side hold it."""
_MEMBRANE_STIFFNESS = 0.3


def feathered(change: Tensor, mask: Tensor) -> Tensor:
    """`(h, w, 3)` change faded by the `(h, w)` mask."""
    return mask[..., None] * change


def multiband(change: Tensor, mask: Tensor) -> Tensor:
    """The change joined band by band: fine detail over a short way, light and colour over a long one.

    Source: Burt and Adelson 1983; the blend of A and A + change is A plus the blend of 0 and the change. Where the mask
    is 0 the result is 0.

    Args:
        change: `(h, w, 3)` float32.
        mask: `(h, w)` float32 in [0, 1].
    """
    import cv2

    num_bands = int(np.clip(np.log2(max(min(mask.shape), 1) / _SMALLEST_BAND_PX), 0, _MOST_BANDS))
    inner = ((mask - MULTIBAND_OUTER) / (1 - MULTIBAND_OUTER)).clamp(0, 1).numpy()
    level, weight = np.ascontiguousarray(change.numpy()), np.ascontiguousarray(inner)
    bands = []
    for _ in range(num_bands):
        smaller = cv2.pyrDown(level)
        bands.append((level - cv2.pyrUp(smaller, dstsize=level.shape[1::-1])) * weight[..., None])
        level, weight = smaller, cv2.pyrDown(weight)
    joined = level * weight[..., None]
    for band in reversed(bands):
        joined = cv2.pyrUp(joined, dstsize=band.shape[1::-1]) + band
    fade = (mask / MULTIBAND_OUTER).clamp(0, 1)
    return torch.from_numpy(joined) * (fade * fade * (3 - 2 * fade))[..., None]


def membrane(change: Tensor, region: FaceRegion) -> Tensor:
    """The smoothest surface that agrees with the change along the edge of the mask; taking it away leaves no seam.

    Subtracting it is Poisson blending (Perez et al. 2003) in the form of Farbman et al. 2009. Instead of one line of
    boundary pixels the whole ramp of the mask counts, and the surface lives in crop coordinates: neither the noise of
    single pixels nor a moving clone centre makes it flicker.

    Args:
        change: `(h, w, 3)` over the region's box.
        region: where.

    Returns:
        `(3, MEMBRANE_SIDE, MEMBRANE_SIDE)` in crop coordinates.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import spsolve

    side = MEMBRANE_SIDE
    values = torch.cat([change.permute(2, 0, 1), region.mask[None]])
    sampled = box_to_crop(values, region, side).double().numpy()
    mask = sampled[3]
    weight = (4 * mask * (1 - mask)).ravel()
    if weight.max() < 1e-3 or not change.any():
        return torch.zeros((3, side, side))
    right = np.ones(side * side - 1)
    right[side - 1 :: side] = 0
    below = np.ones(side * (side - 1))
    degree = np.zeros(side * side)
    for links, step in ((right, 1), (below, side)):
        degree[:-step] += links
        degree[step:] += links
    system = diags(
        [
            weight + _MEMBRANE_STIFFNESS * degree + 1e-9,
            *[-_MEMBRANE_STIFFNESS * links for links in (right, right, below, below)],
        ],
        [0, 1, -1, side, -side],
        format="csc",
    )
    surface = spsolve(system, (weight * sampled[:3].reshape(3, -1)).T)
    return torch.from_numpy(np.ascontiguousarray(surface.T)).float().reshape(3, side, side)
