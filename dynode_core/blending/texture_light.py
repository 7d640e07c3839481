"""How the light on the skin has changed since a texture was painted (ours).

What a texture adds is a difference of brightness, and in half of the light it has to be half of it: else a beard gets
darker than black where the head turns into the shade. The light is read from the clip itself, at places of the skin
that correspond, and blurred so far that wrinkles and expressions do not count.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.crop import crop_clip
from ..faces.masks import face_mask
from ..faces.mesh_warp import CarriedPlaces
from ..layout import LUMA
from ..types import AlignedClip
from .crop_space import blur_counting

_SIDE = 48
_BLUR = 0.12
"""In sides of the crop."""
_LARGEST = 2.0
"""The most that the light may change, either way: what differs more is no light."""
_DARK = 0.04
"""Where the skin is darker than this in one of the frames, of 1, nothing is learned about the light."""
_KEPT_FRAMES = 4
_INWARDS = -0.06
"""How far inside its outline the face counts, in face heights: hair and what lies behind are no skin."""


class TextureLight:
    """The light at each frame over that in the frame of a texture.

    Args:
        aligned: the clip.
        frame_index: of the texture.
        landmarks: `(P, 2)` of that frame, in units of the crop's side.
    """

    def __init__(self, aligned: AlignedClip, frame_index: int, landmarks: np.ndarray) -> None:
        self._aligned, self._own = aligned, frame_index
        self._skin = face_mask(landmarks[None] * _SIDE, _SIDE, _SIDE, region="face", dilate=_INWARDS, feather=0.05)
        self._brightness = functools.lru_cache(maxsize=_KEPT_FRAMES)(self._find_brightness)

    def gain(self, index: int, places: CarriedPlaces) -> Tensor:
        """`(1, S, S)`: what the texture is multiplied with in frame `index`, whose pixels lie at `places` of its own.

        1 in its own frame.
        """
        size = places.share.shape[-1]
        if index == self._own:
            return torch.ones(1, size, size)
        grid = F.interpolate(places.grid.permute(0, 3, 1, 2), _SIDE, mode="bilinear", antialias=True)
        share = F.interpolate(places.share[None], _SIDE, mode="bilinear", antialias=True)[0]
        here = self._brightness(index)
        anchor = torch.cat([self._brightness(self._own), self._skin])[None]
        own, skin = F.grid_sample(anchor, grid.permute(0, 2, 3, 1), align_corners=False)[0].split(1)
        counts = share * skin * ((here > _DARK) & (own > _DARK))
        now, then = blur_counting(torch.cat([here, own]), counts, _BLUR * _SIDE).split(1)
        known = (now > _DARK) & (then > _DARK)
        light = torch.where(known, now / then.clamp_min(_DARK), torch.ones_like(now)).clamp(1 / _LARGEST, _LARGEST)
        return F.interpolate(light[None], size, mode="bilinear", align_corners=False)[0]

    def _find_brightness(self, index: int) -> Tensor:
        """`(1, _SIDE, _SIDE)` in [0, 1]."""
        crop = F.interpolate(crop_clip(self._aligned, [index], 2 * _SIDE), _SIDE, mode="area")[0]
        weights = LUMA.to(crop)[:, None, None]
        return (((crop + 1) / 2) * weights).sum(dim=0, keepdim=True).clamp(0, 1)
