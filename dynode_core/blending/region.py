"""Where in a frame the face goes in: a soft mask that moves without trembling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_finite, check_shape
from ..faces.align import has_face
from ..faces.masks import face_mask, region_outline
from ..faces.warp import QuadWarp, quad_to_crop_matrices
from ..types import AlignedClip
from .background import interpolate
from .settings import WHOLE_CROP, BlendSettings
from .shots import Shots

_EDGE_SHARE = 0.06
"""Share of the crop over which it fades towards its own edge, whatever the region is."""
_WINDOW_SIGMAS = 3
_RAMP_PX = 8
"""A ramp of this width is still drawn smoothly."""


@dataclass(frozen=True)
class FaceRegion:
    """Where one output frame changes."""

    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 px of the frame: nothing outside changes."""
    quad: np.ndarray
    """`(4, 2)` px of the frame."""
    mask: Tensor
    """`(h, w)` float32 in [0, 1] over `box`; pixels at 0 do not change."""
    share: float = 1.0
    """In (0, 1]: how much of the change is shown, the same everywhere: it fades before the face goes."""

    @property
    def local_quad(self) -> np.ndarray:
        """`(1, 4, 2)` px from the top left of `box`."""
        return (self.quad - np.array(self.box[:2], dtype=np.float64))[None]

    @cached_property
    def from_crop(self) -> QuadWarp:
        """From crop coordinates to `box`."""
        return QuadWarp(self.quad, self.box)

    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of `box`."""
        x0, y0, x1, y1 = self.box
        return slice(y0, y1), slice(x0, x1)


class RegionFinder:
    """Makes the `FaceRegion` of any time of a clip.

    The outline is smoothed over time in the coordinates of its quad: there a head that moves keeps still, so the
    smoothing takes the trembling of the landmarks and no motion.

    Args:
        aligned: clip, quads, landmarks.
        settings: region (the whole crop where there are no landmarks), dilate, feather, mask_smoothing.
        masks: `(T, H, W)`, `(N, H, W)` or `(1, H, W)` in [0, 1] for the T source frames, the N output frames or all:
            white lets the face in, black keeps the original.
        num_outputs: N.

    Raises:
        ValueError: masks of another shape, or with NaN.
    """

    def __init__(self, aligned: AlignedClip, settings: BlendSettings, masks: Tensor | None, num_outputs: int) -> None:
        self._aligned, self._settings, self._masks = aligned, settings, masks
        self._shots = Shots(aligned)
        self._whole_crop = settings.region == WHOLE_CROP or not has_face(aligned.track)
        clip = aligned.clip
        if masks is not None:
            check_shape("masks", masks, ("n", clip.height, clip.width))
            check_finite("masks", masks)
            if len(masks) not in (1, clip.num_frames, num_outputs):
                raise ValueError(
                    f"There are {len(masks)} masks. Give one for all frames, {clip.num_frames} for the frames of the "
                    f"clip, or {num_outputs} for the frames to come."
                )

    def at(self, output_index: int, time_s: float) -> FaceRegion | None:
        """The region of an output frame at `time_s`, or None if the face is not in the picture then."""
        clip = self._aligned.clip
        index, fraction = self._shots.place_of(time_s)
        if not self._shots.is_present(index, fraction):
            return None
        quad = interpolate(self._aligned.quads, index, fraction)
        box = _clip_box(quad.min(axis=0) - 1, quad.max(axis=0) + 1, clip.width, clip.height)
        if box is None:
            return None
        region = _tighten(FaceRegion(box, quad, self._outline_mask(quad, index, fraction, box)))
        if region is None:
            return None
        mask = region.mask * edge_fade(quad, region.box)
        if self._masks is not None:
            mask = mask * self._user_mask(output_index, index, fraction)[region.slices()]
        return _tighten(FaceRegion(region.box, quad, mask, self._shots.share_at(index, fraction)))

    def _outline_mask(self, quad: np.ndarray, index: int, fraction: float, box: tuple[int, int, int, int]) -> Tensor:
        """`(h, w)` mask of the chosen region over `box`."""
        x0, y0, x1, y1 = box
        settings = self._settings
        if self._whole_crop:
            return torch.ones((y1 - y0, x1 - x0))
        unit = unit_landmarks(self._aligned, self._shots, index, fraction, settings.mask_smoothing)
        landmarks = _apply(np.linalg.inv(quad_to_crop_matrices(quad[None], 1))[0], unit)
        return soft_outline(landmarks - np.array([x0, y0], dtype=np.float64), y1 - y0, x1 - x0, settings)

    def _user_mask(self, output_index: int, index: int, fraction: float) -> Tensor:
        """`(H, W)` of the mask that was handed in, at this output frame."""
        assert self._masks is not None
        if len(self._masks) == 1:
            chosen = self._masks[0]
        elif len(self._masks) != self._aligned.clip.num_frames:
            chosen = self._masks[output_index]
        elif fraction:
            chosen = torch.lerp(self._masks[index].float(), self._masks[index + 1].float(), fraction)
        else:
            chosen = self._masks[index]
        return chosen.detach().float().cpu().clamp(0, 1)


def unit_landmarks(aligned: AlignedClip, shots: Shots, index: int, fraction: float, sigma: float) -> np.ndarray:
    """`(P, 2)` landmarks where the quad is the unit square, smoothed over their shot with `sigma` frames.

    Args:
        index, fraction: a place of the clip, as `Shots.place_of` gives it.
    """
    if fraction:
        after = unit_landmarks(aligned, shots, index + 1, 0.0, sigma)
        return (1 - fraction) * unit_landmarks(aligned, shots, index, 0.0, sigma) + fraction * after
    reach = int(np.ceil(_WINDOW_SIGMAS * sigma))
    first, stop = shots.run_around(index)
    near = np.arange(max(first, index - reach), min(stop, index + reach + 1))
    weights = np.exp(-0.5 * ((near - index) / max(sigma, 1e-6)) ** 2)
    matrices = quad_to_crop_matrices(aligned.quads[near], 1)
    unit = np.stack([_apply(m, p) for m, p in zip(matrices, aligned.track.landmarks[near], strict=True)])
    return np.tensordot(weights / weights.sum(), unit, axes=1)


def edge_fade(quad: np.ndarray, box: tuple[int, int, int, int]) -> Tensor:
    """`(h, w)` over `box`: 0 at the edge of a `(4, 2)` quad and outside it, smoothly 1 further in."""
    x0, y0, x1, y1 = box
    local = quad - np.array([x0, y0], dtype=np.float64)
    matrix = quad_to_crop_matrices(local[None], 1)[0].astype(np.float32)
    x = torch.arange(x1 - x0, dtype=torch.float32)[None] + 0.5
    y = torch.arange(y1 - y0, dtype=torch.float32)[:, None] + 0.5
    across, down, depth = (x * float(m[0]) + (y * float(m[1]) + float(m[2])) for m in matrix)
    off_centre = torch.maximum(across.div_(depth).sub_(0.5).abs_(), down.div_(depth).sub_(0.5).abs_())
    to_edge = off_centre.neg_().add_(0.5).div_(_EDGE_SHARE).clamp_(0, 1)
    return to_edge * to_edge * (3 - 2 * to_edge)


def soft_outline(landmarks: np.ndarray, height: int, width: int, settings: BlendSettings) -> Tensor:
    """`(height, width)` mask of the chosen region for `(P, 2)` landmarks.

    Where the ramp is many pixels wide the mask is drawn smaller and enlarged: the same mask, sooner.
    """
    _, face_height_px = region_outline(landmarks, settings.region)
    step = int(np.clip(settings.feather * face_height_px / _RAMP_PX, 1, 8))
    mask = face_mask(
        landmarks[None] / step,
        -(-height // step),
        -(-width // step),
        region=settings.region,
        dilate=settings.dilate,
        feather=settings.feather,
    )
    if step > 1:
        mask = F.interpolate(mask[None], scale_factor=step, mode="bilinear", align_corners=False)[0]
    return mask[0, :height, :width]


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`(P, 2)` points through a `(3, 3)` homography."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[:, :2] / mapped[:, 2:]


def _clip_box(lowest: np.ndarray, highest: np.ndarray, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Whole pixels around a rectangle, inside the frame; None if none are left."""
    x0, y0 = np.floor(lowest).astype(int).clip(0).tolist()
    x1, y1 = np.minimum(np.ceil(highest).astype(int), (width, height)).tolist()
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _tighten(region: FaceRegion) -> FaceRegion | None:
    """The same region with the smallest box; None if the mask is empty."""
    rows = torch.nonzero(region.mask.amax(dim=1) > 0).flatten().tolist()
    columns = torch.nonzero(region.mask.amax(dim=0) > 0).flatten().tolist()
    if not rows:
        return None
    x0, y0 = region.box[:2]
    box = (x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1)
    mask = region.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return replace(region, box=box, mask=mask.contiguous())
