"""Faces back into their clip, frame by frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..checks import check_finite
from ..layout import pictures_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..types import AlignedClip
from .background import Background
from .compositor import Compositor
from .covering import PartFinder
from .region import RegionFinder
from .settings import BlendSettings
from .shots import Shots

if TYPE_CHECKING:
    from ..rendering import FaceFrames

logger = logging.getLogger(__name__)

_PREVIEW_SIDE_PX = 512


@runtime_checkable
class ShowsFaces(Protocol):
    """Faces that say where they are to be seen as they are, such as `textured.TexturedFaces`."""

    def read_shown(self, start: int, stop: int) -> Tensor:
        """`(stop - start, 1, ACTIVITY_SIDE, ACTIVITY_SIDE)` in [0, 1]."""
        ...


def blend_clip(
    aligned: AlignedClip,
    faces: FaceFrames,
    settings: BlendSettings | None = None,
    *,
    masks: Tensor | None = None,
    finder: PartFinder | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[int, Tensor]]:
    """Put N faces into the frames of their times.

    At the time of a source frame that frame is used bit by bit; between two, quad, outline and masks lie on the
    straight line between theirs, and the background is moved along optical flow (or is the nearest frame). Outside
    the mask no value changes, and in frames without the face (`track.present`) none at all. Nothing is mixed over a
    cut: there the nearer frame is shown. Times outside the clip show its first or last frame.

    Args:
        aligned: the clip and where its face is.
        faces: what to put there, at `faces.times` seconds of the clip.
        settings: mode, region, edge; None: the defaults.
        masks: `(1, H, W)`, `(T, H, W)` for the source frames or `(N, H, W)` for the output frames, in [0, 1]: the
            face goes in only where these are white.
        finder: tells the parts of a crop: hair, hands, clothes and background stay as they are (see `covering`).
        progress: called after every frame with a preview.

    Returns:
        An iterator of (index of first frame, `(n, H, W, 3)` float32 in [0, 1]) with n <= `settings.chunk`. Besides what
        the source holds, about `chunk` + 3 frames are in memory.

    Raises:
        ValueError: no faces, times with NaN, or masks of another size: at once, before any work.
    """
    settings = settings or BlendSettings()
    times = np.asarray(faces.times, dtype=np.float64)
    if faces.num_frames < 1:
        raise ValueError("There are no faces to blend. Connect at least one.")
    if times.shape != (faces.num_frames,):
        raise ValueError(f"There are {faces.num_frames} faces, but their times have shape {times.shape}.")
    check_finite("The times of the faces", times)
    regions = RegionFinder(aligned, settings, masks, faces.num_frames)
    return _keeping_blocks(_blend_chunks(aligned, faces, times, regions, Compositor(settings, finder), progress))


def _keeping_blocks(pieces: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """The same, with memory kept from face to face: they are rendered one at a time."""
    with reuse_large_blocks():
        yield from pieces


@torch.no_grad()
def _blend_chunks(
    aligned: AlignedClip,
    faces: FaceFrames,
    times: np.ndarray,
    regions: RegionFinder,
    compositor: Compositor,
    progress: Progress,
) -> Iterator[tuple[int, Tensor]]:
    settings, shots = compositor.settings, Shots(aligned)
    background = Background(aligned.clip, settings.background)
    has_warned = False
    for start in range(0, len(times), settings.chunk):
        stop = min(start + settings.chunk, len(times))
        edited = faces.read(start, stop)
        base = faces.read_base(start, stop) if compositor.uses_base else None
        shown: Tensor | list[None] = [None] * (stop - start)
        if isinstance(faces, ShowsFaces):
            shown = faces.read_shown(start, stop)
        if base is None and settings.mode != "replace" and not has_warned:
            has_warned = True
            logger.warning(
                "These faces come without their unedited version, so there is no change to add: "
                'they are blended with mode "replace" instead of "%s".',
                settings.mode,
            )
        finished = torch.empty((stop - start, aligned.clip.height, aligned.clip.width, 3))
        for i, time_s in enumerate(times[start:stop]):
            frame = background.at(*shots.place_of(float(time_s)))
            region = regions.at(start + i, time_s)
            if region is None:
                finished[i] = frame
            else:
                base_i = None if base is None else base[i]
                compositor.put(frame, edited[i], base_i, region, float(time_s), start + i, shown[i], finished[i])
            progress(start + i + 1, len(times), preview_of(finished[i]))
        yield start, finished


def preview_of(frame: Tensor) -> np.ndarray:
    """`(H, W, 3)` float in [0, 1] as a small uint8 picture for `progress`."""
    step = -(-max(frame.shape[:2]) // _PREVIEW_SIDE_PX)
    return pictures_to_bytes(frame[::step, ::step])
