"""Blend and encode in one pass: what Blend Back, the command line and nobody else should repeat."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .blending import BlendSettings, blend_clip
from .progress import Progress, silent
from .rendering import FaceFrames
from .types import AlignedClip, VideoClip
from .video import VideoWriter

SYNC_TOLERANCE_S = 0.08
"""Sound is dropped rather than be off by more than this. Detectability thresholds in ITU-R BT.1359: +45 ms to -125 ms."""


@dataclass(frozen=True)
class ExportedVideo:
    """What was written."""

    path: Path
    num_frames: int
    fps: Fraction
    sound: str
    """Empty without sound, else how fast it plays, e.g. "speed 1"."""
    kept: Tensor
    """`(kept, H, W, 3)` float32 in [0, 1]: the first frames, as many as were asked for."""


def sound_speed(times: np.ndarray, fps: Fraction) -> float | None:
    """Speed at which the source's sound fits frames of source `times` `(N,)` seconds, played at `fps`.

    Returns:
        1.0 for the clip's own speed, 0.25 for four times slow motion; None where no constant speed from the start of the
        clip keeps the sound within `SYNC_TOLERANCE_S` of the picture.
    """
    played = np.arange(len(times)) / float(fps)
    speed = float((times[-1] - times[0]) / played[-1]) if len(times) > 1 else 1.0
    if speed <= 0:
        return None
    if abs(speed - 1) * max(played[-1], 1.0) < SYNC_TOLERANCE_S / 4:
        speed = 1.0
    drift_s = np.abs(times - speed * played) / speed
    return speed if float(drift_s.max()) <= SYNC_TOLERANCE_S else None


def export_video(
    path: Path,
    aligned: AlignedClip,
    faces: FaceFrames,
    settings: BlendSettings,
    *,
    masks: Tensor | None = None,
    sound: VideoClip | None = None,
    keep: int = 0,
    crf: int = 16,
    progress: Progress = silent,
) -> ExportedVideo:
    """Blend `faces` into their frames and write the result as an MP4; nothing is left behind on error or cancel.

    Args:
        path: the file to write.
        masks: `(N or 1, H, W)` in [0, 1]: see `blending.blend_clip`.
        sound: clip whose sound goes into the file, or None for silence. It is stretched when the clip is retimed.
        keep: how many of the first frames to return as well.
        crf: quality of the encoder, 0 (best, large) to 51.
    """
    speed = sound_speed(faces.times, faces.fps) if sound is not None else None
    size = (aligned.clip.width, aligned.clip.height)
    kept = torch.empty((min(keep, faces.num_frames), aligned.clip.height, aligned.clip.width, 3))
    audio_from = sound if speed is not None else None
    with VideoWriter(path, faces.fps, size, audio_from=audio_from, speed=speed or 1.0, crf=crf) as writer:
        for start, frames in blend_clip(aligned, faces, settings, masks=masks, progress=progress):
            writer.write(frames)
            wanted = max(0, len(kept) - start)
            kept[start : start + len(frames[:wanted])] = frames[:wanted]
    return ExportedVideo(
        path=Path(path),
        num_frames=faces.num_frames,
        fps=faces.fps,
        sound="" if audio_from is None else f"speed {speed:g}",
        kept=kept,
    )
