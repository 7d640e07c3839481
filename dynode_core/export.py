"""Blend and encode in one pass: what Blend Back, the command line and nobody else should repeat."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .blending import BlendSettings, blend_clip
from .blending.covering import PartFinder
from .layout import masks_of_size
from .progress import Progress, silent
from .rendering import FaceFrames
from .types import AlignedClip, VideoClip
from .video import VideoWriter

SAME_SPEED_S = 0.002
"""Frame times within this of a constant rate are written at that rate."""
SLOWEST, FASTEST = 1 / 64, 4.0
"""Speeds between which stretched sound is worth hearing."""
SYNC_TOLERANCE_S = 0.08
"""Sound is dropped rather than be off by more than this. Detectability thresholds in ITU-R BT.1359: +45 ms to -125 "
"ms."""


@dataclass(frozen=True)
class ExportedVideo:
    """What was written."""

    path: Path
    num_frames: int
    fps: Fraction
    sound: str
    """Empty if none was asked for or none fits, else how fast it plays, e.g. "speed 1"."""
    kept: Tensor
    """`(kept, H, W, 3)` float32 in [0, 1]: the first frames, as many as were asked for."""


@dataclass(frozen=True)
class Playback:
    """How frames of the source's `times` are shown in the new file."""

    speed: float
    """Seconds of the source per second of the new file; 0.25 is four times slow motion."""
    frame_times: np.ndarray | None
    """`(N,)` seconds in the new file where a constant frame rate would not keep the source's own times, else None."""
    in_sync: bool
    """False where no constant speed of the sound stays with the picture."""


def plan_playback(times: np.ndarray, fps: Fraction) -> Playback:
    """Speed and frame times for frames of the source `times` `(N,)` seconds that are to be played at `fps`."""
    played = np.arange(len(times)) / float(fps)
    since_start = times - times[0]
    speed = float(since_start[-1] / played[-1]) if len(times) > 1 else 1.0
    if abs(speed - 1) * float(played[-1]) <= SAME_SPEED_S:
        uneven = float(np.abs(since_start - played).max()) > SAME_SPEED_S
        return Playback(speed=1.0, frame_times=since_start if uneven else None, in_sync=True)
    drift_s = np.abs(since_start / speed - played) if speed > 0 else np.array([np.inf])
    in_sync = SLOWEST <= speed <= FASTEST and float(drift_s.max()) <= SYNC_TOLERANCE_S
    return Playback(speed=speed, frame_times=None, in_sync=in_sync)


def export_video(
    path: Path,
    aligned: AlignedClip,
    faces: FaceFrames,
    settings: BlendSettings,
    *,
    masks: Tensor | None = None,
    finder: PartFinder | None = None,
    sound: VideoClip | None = None,
    keep: int = 0,
    crf: int = 16,
    progress: Progress = silent,
) -> ExportedVideo:
    """Blend `faces` into their frames and write the result as an MP4; nothing is left behind on error or cancel.

    Args:
        path: the file to write.
        masks: `(n, H, W)` in [0, 1] of any size, which is made that of the frames: see `blending.blend_clip`.
        finder: keeps hair, hands and background: see `blending.blend_clip`.
        sound: clip whose sound goes into the file, or None for silence. It is stretched when the clip is retimed.
        keep: how many of the first frames to return as well.
        crf: quality of the encoder, 0 (best, large) to 51.
    """
    playback = plan_playback(faces.times, faces.fps)
    audio_from = sound if sound is not None and playback.in_sync else None
    height, width = aligned.clip.height, aligned.clip.width
    masks = None if masks is None else masks_of_size(masks, height, width)
    kept = torch.empty((min(keep, faces.num_frames), height, width, 3))
    silent_or_stretched = playback.speed if audio_from is not None else 1.0
    writer = VideoWriter(
        path,
        faces.fps,
        (height, width),
        audio_from=audio_from,
        audio_start_s=float(faces.times[0]),
        speed=silent_or_stretched,
        frame_times=playback.frame_times,
        crf=crf,
    )
    with writer:
        for start, frames in blend_clip(aligned, faces, settings, masks=masks, finder=finder, progress=progress):
            writer.write(frames)
            early = frames[: max(0, len(kept) - start)]
            kept[start : start + len(early)] = early
    has_sound = audio_from is not None and audio_from.path is not None
    return ExportedVideo(
        path=Path(path),
        num_frames=faces.num_frames,
        fps=faces.fps,
        sound=f"speed {playback.speed:g}" if has_sound else "",
        kept=kept,
    )
