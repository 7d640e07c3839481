"""Rendered faces with a texture that moves with the mesh of the face."""

from __future__ import annotations

import functools
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.mesh_warp import CarriedPlaces, FaceMesh
from ..types import AlignedClip, FaceTexture
from .composite import ACTIVITY_SIDE
from .region import unit_landmarks
from .shots import Shots
from .texture_light import TextureLight

if TYPE_CHECKING:
    from ..rendering import FaceFrames

LANDMARK_SMOOTHING = 1.0
"""Standard deviation over time, in frames, of the smoothing of the landmarks that move a texture."""
_KEPT_PLACES = 8
"""Each is asked for with the edited face, with the unedited one and for where it is shown."""
_MOST_PLACES = 512
"""Places are found on at most this many points a side and interpolated between them."""


class TexturedFaces:
    """Faces that carry what the generator cannot draw: a `rendering.FaceFrames` around another one.

    The texture fades where the mesh has turned away since its own frame, and is not there in frames without the face.
    It gets lighter and darker with the skin around it.
    What stands before the face is left out by Blend Back (`keep_occluders` and masks), as for every face. Nothing is
    kept but the texture: a clip of any length costs no memory.

    Args:
        faces: what to complete.
        aligned: the clip, for the landmarks of each time.
        texture: what is added.
        strength: factor on it.
        smoothing: standard deviation over time, in frames, of the smoothing of the landmarks; 0: none.
        follow_light: off: the texture is as bright everywhere as in its own frame.

    Raises:
        ValueError: the texture was made for landmarks of another kind, or the clip has none.
    """

    def __init__(
        self,
        faces: FaceFrames,
        aligned: AlignedClip,
        texture: FaceTexture,
        *,
        strength: float = 1.0,
        smoothing: float = LANDMARK_SMOOTHING,
        follow_light: bool = True,
    ) -> None:
        points, own = aligned.track.landmarks.shape[1], len(texture.landmarks)
        if points != own:
            raise ValueError(
                f"The texture was made on a face with {own} landmarks, but this clip has {points}. Use the clip that "
                "the edited picture belongs to, or one aligned by the same landmarker."
            )
        self._faces, self._aligned, self._shots = faces, aligned, Shots(aligned)
        self._smoothing = smoothing
        self._texture = replace(texture, alpha=texture.alpha * strength)
        self._mesh = FaceMesh(texture.landmarks)
        self._light = TextureLight(aligned, texture.frame_index, texture.landmarks) if follow_light else None
        self._places = functools.lru_cache(maxsize=_KEPT_PLACES)(self._find_places)
        self._gain = functools.lru_cache(maxsize=_KEPT_PLACES)(self._find_gain)

    @property
    def times(self) -> np.ndarray:
        return self._faces.times

    @property
    def fps(self) -> Fraction:
        return self._faces.fps

    @property
    def size(self) -> int:
        return self._faces.size

    @property
    def num_frames(self) -> int:
        return self._faces.num_frames

    def read(self, start: int, stop: int) -> Tensor:
        """As `FaceFrames.read`, with the texture."""
        faces = self._faces.read(start, stop)
        return faces.clamp(-1, 1) + self._carried(self._texture.shown, start, stop)

    def read_base(self, start: int, stop: int) -> Tensor | None:
        """As `FaceFrames.read_base`, with the detail of the source that the texture replaces."""
        faces = self._faces.read_base(start, stop)
        return None if faces is None else faces.clamp(-1, 1) + self._carried(self._texture.detail, start, stop)

    def read_shown(self, start: int, stop: int) -> Tensor:
        """`(stop - start, 1, ACTIVITY_SIDE, ACTIVITY_SIDE)` in [0, 1]: where the face is to be seen as it is."""
        ones = torch.ones_like(self._texture.alpha)
        alpha = torch.stack([self._moved(ones, i) for i in range(start, stop)])
        return F.interpolate(alpha, (ACTIVITY_SIDE, ACTIVITY_SIDE), mode="bilinear", antialias=True).clamp(0, 1)

    def _carried(self, picture: Tensor, start: int, stop: int) -> Tensor:
        return torch.stack([self._moved(picture, i) * self._gain(i) for i in range(start, stop)])

    def _moved(self, picture: Tensor, i: int) -> Tensor:
        """`(C, size, size)` of `picture` times alpha at the time of face `i`."""
        places = self._places(i)
        if places is None:
            return picture.new_zeros((len(picture), self.size, self.size))
        stacked = torch.cat([picture, self._texture.alpha])[None]
        moved = F.grid_sample(stacked, places.grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
        return moved[:-1] * moved[-1:] * places.share

    def _find_gain(self, i: int) -> Tensor:
        """`(1, size, size)`, or 1: how much lighter the skin is at face `i` than in the texture's own frame."""
        places = self._places(i)
        if places is None or self._light is None or not bool(self._texture.alpha.any()):
            return torch.ones(1)
        index, fraction = self._shots.place_of(float(self.times[i]))
        before = self._light.gain(index, places)
        return torch.lerp(before, self._light.gain(index + 1, places), fraction) if fraction else before

    def _find_places(self, i: int) -> CarriedPlaces | None:
        """Where the pixels of face `i` lie in the texture; None if the face is not in the picture."""
        index, fraction = self._shots.place_of(float(self.times[i]))
        if not self._shots.is_present(index, fraction):
            return None
        landmarks = unit_landmarks(self._aligned, self._shots, index, fraction, self._smoothing)
        places = self._mesh.places(landmarks, min(self.size, _MOST_PLACES))
        if places.share.shape[-1] == self.size:
            return places
        grid = F.interpolate(places.grid.permute(0, 3, 1, 2), self.size, mode="bilinear", align_corners=False)
        share = F.interpolate(places.share[None], self.size, mode="bilinear", align_corners=False)[0]
        return CarriedPlaces(grid.permute(0, 2, 3, 1), share)
