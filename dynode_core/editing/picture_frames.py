"""Which other frames support an edit from a picture, and what they should look like (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..blending.region import unit_landmarks
from ..blending.shots import Shots
from ..blending.textured import LANDMARK_SMOOTHING
from ..faces.mesh_warp import FaceMesh
from ..inversion.emphasis import has_mesh
from ..types import AlignedClip, EditedLatent, InvertedClip, LatentTrajectory
from .picture_change import PictureChange


@dataclass(frozen=True)
class ClipCodes:
    """Observed codes of a clip."""

    w_plus: Tensor
    """`(K, L, D)` float32."""
    frame_indices: np.ndarray
    """`(K,)` int64: the frame of the clip nearest to each."""


def codes_of(source: InvertedClip | LatentTrajectory | EditedLatent, aligned: AlignedClip) -> ClipCodes | None:
    """The codes that come with what is edited; None where there is only one."""
    if isinstance(source, EditedLatent):
        return None
    times = aligned.clip.frame_times
    nearest = np.abs(times[None] - np.asarray(source.times)[:, None]).argmin(axis=1)
    return ClipCodes(source.w_plus, nearest.astype(np.int64))


def code_at(latent: EditedLatent, codes: ClipCodes | None, aligned: AlignedClip, frame_index: int) -> Tensor:
    """`(L, D)`: the unedited code of a frame, on the straight line between the observed ones around it.

    Raises:
        ValueError: no such frame, or it is not the first and there are no codes of others.
    """
    if not 0 <= frame_index < aligned.clip.num_frames:
        raise ValueError(f"The clip has frames 0 to {aligned.clip.num_frames - 1}, but frame {frame_index} was asked.")
    if frame_index <= aligned.track.first_shown:
        return latent.base_w_plus_0
    if codes is None:
        raise ValueError(
            f"Frame {frame_index} was edited, but only the code of the first one is known. Connect the trajectory or "
            "the codes of the inversion as latent, or edit the first frame."
        )
    after = int(np.searchsorted(codes.frame_indices, frame_index))
    if after == len(codes.frame_indices) or after == 0:
        return codes.w_plus[min(after, len(codes.frame_indices) - 1)]
    first, last = codes.frame_indices[after - 1], codes.frame_indices[after]
    return torch.lerp(codes.w_plus[after - 1], codes.w_plus[after], float((frame_index - first) / (last - first)))


def supporting_frames(aligned: AlignedClip, codes: ClipCodes, frame_index: int, count: int) -> list[int]:
    """At most `count` positions in `codes`: the frames that differ most from the edited one and from each other.

    Only frames with a detected mesh, of the same shot. Distance is the mean shift of the landmarks within the crop.
    """
    shots = Shots(aligned)
    if not has_mesh(aligned, frame_index):
        return []
    first, stop = shots.run_around(frame_index)
    near = [k for k, i in enumerate(codes.frame_indices.tolist()) if first <= i < stop and has_mesh(aligned, i)]
    near = [k for k in near if int(codes.frame_indices[k]) != frame_index]
    points = {k: _landmarks(aligned, shots, int(codes.frame_indices[k])) for k in near}
    least = {k: _distance(points[k], _landmarks(aligned, shots, frame_index)) for k in near}
    chosen: list[int] = []
    while least and len(chosen) < count:
        farthest = max(least, key=lambda k: least[k])
        chosen.append(farthest)
        del least[farthest]
        least = {k: min(value, _distance(points[k], points[farthest])) for k, value in least.items()}
    return chosen


def carried_change(aligned: AlignedClip, change: PictureChange, frame_index: int, size: int) -> Tensor:
    """`(1, 4, size, size)`: the difference and where it counts, moved to another frame with the mesh of the face."""
    shots = Shots(aligned)
    mesh = FaceMesh(_landmarks(aligned, shots, change.frame_index))
    places = mesh.places(_landmarks(aligned, shots, frame_index), size)
    stacked = torch.cat([change.difference, change.changed], dim=1)
    small = F.interpolate(stacked, (size, size), mode="bilinear", antialias=True, align_corners=False)
    moved = F.grid_sample(small, places.grid, padding_mode="zeros", align_corners=False)
    return moved * places.share


def _landmarks(aligned: AlignedClip, shots: Shots, index: int) -> np.ndarray:
    return unit_landmarks(aligned, shots, index, 0.0, LANDMARK_SMOOTHING)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other, axis=1).mean())
