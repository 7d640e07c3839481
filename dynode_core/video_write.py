"""Frames to a video file, one chunk at a time, with the sound of a source."""

from __future__ import annotations

import contextlib
import logging
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checks import check_finite, check_increasing
from .clip import exact_fps
from .layout import pictures_to_bytes
from .types import VideoClip
from .video_audio import AudioTrack, add_audio
from .video_colour import rgb_to_frame, tag_bt709

logger = logging.getLogger(__name__)

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_VARIABLE_TIME_BASE = Fraction(1, 90_000)


class VideoWriter:
    """Writes H.264 (yuv420p, BT.709, limited range) as a context manager.

    The file appears under its name when the block ends; on an error or a cancel nothing is left behind.

    ```
    with VideoWriter("out.mp4", clip.fps, (clip.height, clip.width), audio_from=clip) as writer:
        for _, frames in clip.chunks(8):
            writer.write(frames)
    ```

    Args:
        path: .mp4, .m4v, .mov or .mkv; its folder is made if need be.
        fps: see `exact_fps`.
        size: (height, width) px of the frames to come; None: that of the first ones. H.264 in yuv420p has even sizes
            only: an odd one gains one row or column, a repeat of the last (`padded` says so, and the log).
        audio_from: a clip with a `path`: its sound, from the clip's first frame on, goes into the file.
        speed: seconds of the source per second of the new file (0.25: four times slower). 1 copies the sound without
            encoding it; otherwise it is stretched with its pitch kept.
        audio_start_s: the second of the clip that the first written frame shows.
        frame_times: `(N,)` seconds in the new file, for a variable frame rate; None: evenly spaced at `fps`.
        crf: x264's quality, 0 (lossless) to 51; 16 cannot be told from the source by eye.
        preset: x264's trade of time for size.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | Fraction,
        size: tuple[int, int] | None = None,
        *,
        audio_from: VideoClip | None = None,
        speed: float = 1.0,
        audio_start_s: float = 0.0,
        frame_times: np.ndarray | None = None,
        crf: int = 16,
        preset: str = "fast",
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in FORMATS:
            raise ValueError(f"A video is written as {', '.join(FORMATS)}, but the name is {self.path.name!r}.")
        if not 0 < speed < np.inf:
            raise ValueError(f"speed should be a number above 0, but is {speed}.")
        if frame_times is not None:
            check_increasing("frame_times", np.asarray(frame_times, dtype=np.float64))
        self.fps = exact_fps(fps)
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.frames_written = 0
        self._audio_from, self._speed, self._audio_start_s = audio_from, float(speed), audio_start_s
        self._frame_times = None if frame_times is None else np.array(frame_times, dtype=np.float64)
        self._options = {"crf": str(crf), "preset": preset}
        self._part = self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")
        self._container: Any = None
        self._stream: Any = None
        self._audio: AudioTrack | None = None

    @property
    def padded(self) -> tuple[int, int]:
        """(rows, columns) that the file has more than the frames: 0 or 1 each."""
        return (0, 0) if self.size is None else (self.size[0] % 2, self.size[1] % 2)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._clean_up()

    def write(self, frames: Tensor) -> None:
        """Append `(n, H, W, 3)` float frames in [0, 1]; values outside are clamped.

        Raises:
            ValueError: another size than that of the file, NaN, or more frames than `frame_times`.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
            raise ValueError(f"Frames should have shape (n, H, W, 3), but have shape {tuple(frames.shape)}.")
        self.size = self.size or (int(frames.shape[1]), int(frames.shape[2]))
        if tuple(frames.shape[1:3]) != self.size:
            raise ValueError(
                f"{self.path.name} is being written with {self.size[0]} rows x {self.size[1]} columns, but frames of "
                f"{frames.shape[1]} x {frames.shape[2]} arrived."
            )
        if self._frame_times is not None and self.frames_written + len(frames) > len(self._frame_times):
            raise ValueError(f"More frames arrived than there are frame_times ({len(self._frame_times)}).")
        check_finite("The frames to write", frames)
        if self._container is None:
            self._open()
        rows, columns = self.padded
        for frame in frames:
            picture = pictures_to_bytes(frame)
            if rows or columns:
                picture = np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")
            self._encode(picture)

    def _encode(self, picture: np.ndarray) -> None:
        """One picture, and the sound up to it."""
        frame = rgb_to_frame(picture, self._reformatter)
        start_s = self._time_of(self.frames_written)
        frame.time_base = self._stream.codec_context.time_base
        frame.pts = self.frames_written if self._frame_times is None else round(start_s / frame.time_base)
        self._container.mux(self._stream.encode(frame))
        self.frames_written += 1
        if self._audio is not None:
            self._audio.advance(start_s)

    def _time_of(self, frame_index: int) -> float:
        """When a frame is shown, seconds in the new file."""
        if self._frame_times is None:
            return float(frame_index / self.fps)
        return float(self._frame_times[frame_index] - self._frame_times[0])

    def _open(self) -> None:
        """Begin the `.part` file with its streams."""
        import av
        from av.video.reformatter import VideoReformatter

        assert self.size is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        suffix = self.path.suffix.lower()
        options = {} if suffix == ".mkv" else {"movflags": "+faststart"}
        self._container = av.open(str(self._part), "w", format=FORMATS[suffix], options=options)
        self._reformatter = VideoReformatter()
        stream = self._container.add_stream("libx264", rate=self.fps, options=self._options)
        rows, columns = self.padded
        stream.height, stream.width = self.size[0] + rows, self.size[1] + columns
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = 1 / self.fps if self._frame_times is None else _VARIABLE_TIME_BASE
        tag_bt709(stream.codec_context)
        self._stream = stream
        source = self._audio_from
        aspect = getattr(source, "pixel_aspect", None)
        if aspect is not None and aspect != 1:
            stream.codec_context.sample_aspect_ratio = aspect
        if rows or columns:
            logger.warning(
                "%s: H.264 holds even sizes; the last row or column of %d x %d is repeated.", self.path.name, *self.size
            )
        if source is not None and source.path is not None:
            start_s = getattr(source, "media_start_s", 0.0) + self._audio_start_s
            self._audio = add_audio(self._container, Path(source.path), start_s, self._speed)

    def _finish(self) -> None:
        """Flush everything and give the file its name."""
        if self._container is None:
            raise ValueError(f"No frame was written to {self.path}. A video needs at least one.")
        self._container.mux(self._stream.encode(None))
        if self._audio is not None:
            end_s = self._time_of(self.frames_written - 1) + float(1 / self.fps)
            self._audio.finish(end_s)
        container, self._container = self._container, None
        container.close()
        self._part.replace(self.path)

    def _clean_up(self) -> None:
        """Release the source and, unless the file is complete, remove what was begun."""
        if self._audio is not None:
            self._audio.close()
        if self._container is not None:
            with contextlib.suppress(Exception):  # closing an unfinished file may fail; it is removed anyway
                self._container.close()
            self._container = None
        self._part.unlink(missing_ok=True)


def write_video(path: str | Path, frames: Tensor, fps: float | Fraction, **options: Any) -> Path:
    """Write `(T, H, W, 3)` frames that are in memory; options as for `VideoWriter`."""
    with VideoWriter(path, fps, **options) as writer, torch.no_grad():
        for chunk in frames.split(16):
            writer.write(chunk)
    return writer.path
