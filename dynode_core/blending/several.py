"""Several faces in one clip: the faces of one branch go into frames that already show those of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from ..types import AlignedClip, VideoClip


def on_frames_of(aligned: AlignedClip, clip: VideoClip) -> AlignedClip:
    """The same face, to be put into the frames of `clip`: the clip it was found in, finished for another face.

    Args:
        aligned: where the face is in the original.
        clip: the same frames with another face changed. Encoders want even sizes, so it may be a pixel larger.

    Raises:
        ValueError: another number of frames, another size, or frames at other times.
    """
    source = aligned.clip
    more = (clip.height - source.height, clip.width - source.width)
    if clip.num_frames != source.num_frames or not {*more} <= {0, 1}:
        raise ValueError(
            f"The frames to put the face on should be those it was found in: {source.num_frames} of {source.width} x "
            f"{source.height} px, but {clip.num_frames} of {clip.width} x {clip.height} px arrived. Connect the video "
            'of a Blend Back of the same clip, made with mode "same" of Solve At Times.'
        )
    apart_s = float(np.abs(source.frame_times - clip.frame_times).max())
    if clip.num_frames > 1 and apart_s > 0.5 * float(np.diff(source.frame_times).min()):
        raise ValueError(
            f"The frames to put the face on lie up to {apart_s:.2f} s from those it was found in. Connect the video of "
            'a Blend Back of the same clip, made with mode "same" of Solve At Times.'
        )
    return replace(aligned, clip=AtTimes(clip, source.frame_times))


@dataclass(frozen=True)
class AtTimes:
    """A clip whose frames count as those of other times: files round them, and then none would be met exactly."""

    clip: VideoClip
    frame_times: np.ndarray
    """`(T,)` float64 seconds."""

    @property
    def num_frames(self) -> int:
        return self.clip.num_frames

    @property
    def height(self) -> int:
        return self.clip.height

    @property
    def width(self) -> int:
        return self.clip.width

    @property
    def fps(self) -> Fraction:
        return self.clip.fps

    @property
    def clip_id(self) -> str:
        return self.clip.clip_id

    @property
    def path(self) -> Path | None:
        return self.clip.path

    @property
    def media_start_s(self) -> float:
        """Where in its file the clip begins, for its sound."""
        return float(getattr(self.clip, "media_start_s", 0.0))

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width of a pixel over its height, where the file tells."""
        return getattr(self.clip, "pixel_aspect", None)

    def read(self, indices: Sequence[int]) -> Tensor:
        """See `VideoClip.read`."""
        return self.clip.read(indices)

    def chunks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """See `VideoClip.chunks`."""
        return self.clip.chunks(size)
