"""The frames on which a generator is tuned to its surroundings: source, codes and masks of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..faces.align import has_face
from ..faces.crop import crop_clip
from ..faces.warp import apply_homography, pixel_grid, quad_to_crop_matrices
from ..spread import spread_over_groups
from ..tuned_weights import set_number
from ..types import AlignedClip, TrajectorySample
from .region import soft_outline
from .settings import WHOLE_CROP, BlendSettings
from .shots import Shots, nearest_frames
from .stitching import StitchMasks, stitch_masks

OUTER_SHARE = 50 / 1024
"""Width of the border in sides of the crop, as STIT has it."""
EDGE_SHARE = 0.06
"""Blending fades out over this share of the crop at its edge."""
_FULLY_IN = 0.98


@dataclass(frozen=True)
class StitchScene:
    """One output frame."""

    codes: Tensor
    """`(B, L, D)`: with the edit, and without it where that differs."""
    source: Tensor
    """`(1, 3, S, S)` in [-1, 1]: the crop of the source frame."""
    masks: StitchMasks
    """`(1, 1, S, S)` each; the border leaves out what lies outside the frame."""


def choose_outputs(
    sample: TrajectorySample, aligned: AlignedClip, count: int, starts_s: np.ndarray | None = None
) -> list[int]:
    """At most `count` output frames, evenly spread over those that show the face at the time of a source frame (or as
    near to one as there are), and at least one of every shot if `count` allows that.

    Args:
        starts_s: seconds at which sets of weights begin, the first -inf: then of each set at least one, even if these
            are more than `count`.
    Raises:
        ValueError: the face is in the picture at none of the times.
    """
    shots, frame_times = Shots(aligned), aligned.clip.frame_times
    nearest = nearest_frames(frame_times, sample.times)
    shown = [i for i, t in enumerate(sample.times) if shots.is_present(*shots.place_of(float(t)))]
    if not shown:
        raise ValueError(
            "The face is in the picture at none of the times of the sample, so there is nothing to stitch. Choose "
            "times at which FrameAlign found it."
        )
    distance = np.abs(frame_times[nearest] - sample.times)[shown]
    close = np.asarray(shown)[distance <= distance.min() + 1e-3]
    group = aligned.track.shot_of(nearest[close])
    if starts_s is not None and len(starts_s) > 1:
        group = set_number(starts_s, sample.times[close])
        order = np.argsort(group, kind="stable")  # times may run backwards
        close, group, count = close[order], group[order], max(count, len(np.unique(group)))
    return np.sort(close[spread_over_groups(group, count)]).tolist()


def make_scene(
    sample: TrajectorySample, aligned: AlignedClip, index: int, size: int, settings: BlendSettings, device: torch.device
) -> StitchScene:
    """Crop, codes and masks of one output frame, S = `size`, on `device`."""
    frame = int(nearest_frames(aligned.clip.frame_times, sample.times[index : index + 1])[0])
    edited, base = sample.w_plus[index : index + 1], sample.base_w_plus[index : index + 1]
    codes = edited if torch.equal(edited, base) else torch.cat([edited, base])
    edge, outer = round(EDGE_SHARE * size), max(1, round(OUTER_SHARE * size))
    masks = stitch_masks(content_mask(aligned, frame, size, settings), edge_px=edge, outer_px=outer)
    visible = _inside_frame(aligned, frame, size)
    found = StitchMasks(*((mask * visible).to(device) for mask in (masks.content, masks.border)))
    return StitchScene(codes.to(device), crop_clip(aligned, [frame], size).to(device), found)


def content_mask(aligned: AlignedClip, frame: int, size: int, settings: BlendSettings) -> Tensor:
    """`(1, 1, S, S)` of 0 and 1: where blending with these settings shows the face and nothing of the source."""
    if settings.region == WHOLE_CROP or not has_face(aligned.track):
        return torch.ones(1, 1, size, size)
    matrix = quad_to_crop_matrices(aligned.quads[frame : frame + 1], size)[0]
    points = apply_homography(matrix, torch.from_numpy(aligned.track.landmarks[frame])).numpy()
    return (soft_outline(points, size, size, settings) >= _FULLY_IN).float()[None, None]


def _inside_frame(aligned: AlignedClip, frame: int, size: int) -> Tensor:
    """`(1, 1, S, S)`: 1 where a pixel of the crop lies in the frame."""
    to_frame = np.linalg.inv(quad_to_crop_matrices(aligned.quads[frame : frame + 1], size)[0])
    points = apply_homography(to_frame, pixel_grid(0, 0, size, size, 1.0, torch.device("cpu")))
    limits = torch.tensor([aligned.clip.width, aligned.clip.height])
    return ((points >= 0) & (points <= limits)).all(dim=-1).float()[None, None]
