"""From ComfyUI's VIDEO, IMAGE and AUDIO to what the core reads."""

from __future__ import annotations

import hashlib
import io as byte_io
import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl
from torch import Tensor

from ..dynode_core.clip import TensorClip
from ..dynode_core.types import VideoClip
from ..dynode_core.video import FileClip

_AAC_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
_USUAL_RATE = 48000


def clip_of(frames: Any, fps: float) -> VideoClip:
    """The clip behind a VIDEO (streamed from its file) or an IMAGE batch (played at `fps`).

    Raises:
        ValueError: the batch is empty, or the file is not a video.
    """
    if isinstance(frames, torch.Tensor):
        return _clip_of_pictures(frames, fps)
    if isinstance(frames, InputImpl.VideoFromComponents):
        parts = frames.get_components()
        return _clip_of_pictures(parts.images, Fraction(parts.frame_rate), audio=parts.audio)
    return _clip_of_file(frames)


def _clip_of_pictures(pictures: Tensor, fps: float | Fraction, audio: dict[str, Any] | None = None) -> VideoClip:
    clip = TensorClip(pictures, fps)
    if audio is not None:
        clip.path = save_audio(audio)
    return clip


def _clip_of_file(video: Any) -> VideoClip:
    edited = getattr(video, "has_pending_frame_edits", lambda: False)()
    if edited:
        path = temp_file(".mp4")
        video.save_to(str(path))
        return FileClip(path)
    source = video.get_stream_source()
    start_s, duration_s = video.get_active_trim_window()
    path = _file_of_bytes(source) if isinstance(source, byte_io.BytesIO) else Path(source)
    return FileClip(path, start_s=start_s, duration_s=duration_s or None)


def _file_of_bytes(source: byte_io.BytesIO) -> Path:
    data = source.getbuffer()
    path = _temp_folder() / f"{hashlib.sha256(data).hexdigest()[:32]}.video"
    if not path.exists():
        part = path.with_suffix(f".{uuid.uuid4().hex}.part")
        part.write_bytes(data)
        part.replace(path)
    return path


def has_sound(clip: VideoClip) -> bool:
    """Whether the file of a clip, if it has one, holds sound."""
    if clip.path is None:
        return False
    with av.open(str(clip.path)) as container:
        return bool(container.streams.audio)


def sound_clip(audio: dict[str, Any]) -> VideoClip:
    """ComfyUI's AUDIO as the sound of a clip of one black pixel."""
    clip = TensorClip(torch.zeros(1, 1, 1, 3), fps=1.0)
    clip.path = save_audio(audio)
    return clip


def save_audio(audio: dict[str, Any]) -> Path | None:
    """Write ComfyUI's AUDIO as AAC, the form in which it goes into an MP4; None if it holds no sound.

    A rate that AAC does not know becomes 48 kHz.
    """
    waveform = np.nan_to_num(audio["waveform"][0].detach().float().cpu().numpy()[:2]).clip(-1, 1)
    if not waveform.size:
        return None
    layout, given = "mono" if len(waveform) == 1 else "stereo", int(audio["sample_rate"])
    rate = given if given in _AAC_RATES else _USUAL_RATE
    path = temp_file(".m4a")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout=layout)
        frame.sample_rate = given
        frame.pts = 0
        resampler = av.AudioResampler("fltp", layout, rate)
        for part in (*resampler.resample(frame), *(resampler.resample(None) if rate != given else ())):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def temp_file(suffix: str) -> Path:
    """A new name in the pack's part of ComfyUI's temp folder, which the server empties when it starts."""
    return _temp_folder() / f"dynode_{uuid.uuid4().hex[:16]}{suffix}"


def _temp_folder() -> Path:
    folder = Path(folder_paths.get_temp_directory()) / "dynode"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
