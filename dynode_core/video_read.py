"""A clip in a file: frames are decoded when they are asked for, so length costs no memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .clip import check_indices
from .layout import bytes_to_pictures
from .video_colour import frame_to_rgb, turn_upright
from .video_index import VideoIndex, index_video, open_input

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

_NO_STAMP_BEFORE = -(2**62)


class FrameDecoder:
    """Decodes chosen frames of an indexed file: onwards without a seek, elsewhere from the key frame before.

    Not safe to use from two threads at once.
    """

    def __init__(self, path: Path, index: VideoIndex) -> None:
        from av.video.reformatter import VideoReformatter

        self._path, self._index = path, index
        self._reformatter = VideoReformatter()
        self._last_key = np.maximum.accumulate(np.where(index.is_key, np.arange(len(index.is_key)), 0))
        self._container: InputContainer | None = None
        self._shown: VideoFrame | None = None
        self._pending: tuple[int, VideoFrame] | None = None
        self._restart(0)

    def close(self) -> None:
        """Let go of the file."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def picture(self, frame_index: int) -> np.ndarray:
        """`(H, W, 3)` uint8 RGB, upright. Where the file has a time stamp but no picture, the one before it stays.

        Raises:
            ValueError: the file is damaged there.
        """
        if frame_index != self._position:
            key = int(self._last_key[frame_index]) if self._index.pts is not None else 0
            if self._container is None or frame_index < self._position or key > self._position + 1:
                self._restart(key)
            self._advance(frame_index)
            if self._shown is None and key:  # an open group of pictures: its key frame came out later than it says
                self._restart(0)
                self._advance(frame_index)
        if self._shown is None:
            raise self._damaged(frame_index, "no picture comes out of the decoder")
        rgb = frame_to_rgb(self._shown, self._reformatter, self._index.stored_width, self._index.stored_height)
        return turn_upright(rgb, self._index.orientation)

    def _advance(self, frame_index: int) -> None:
        """Decode up to `frame_index` (presentation order) and keep the picture that is shown then."""
        target = frame_index if self._index.pts is None else int(self._index.pts[frame_index])
        while True:
            if self._pending is None:
                self._pending = self._next_frame(frame_index)
            if self._pending is None or self._pending[0] > target:
                break
            self._shown, self._pending = self._pending[1], None
        self._position = frame_index

    def _next_frame(self, frame_index: int) -> tuple[int, VideoFrame] | None:
        """(stamp, picture) of the next decoded frame, None at the end."""
        import av

        try:
            frame = next(self._frames, None)
        except av.FFmpegError as error:
            self.close()
            raise self._damaged(frame_index, str(error)) from error
        if frame is None:
            return None
        self._count += 1
        return (self._count - 1 if self._index.pts is None else frame.pts), frame

    def _restart(self, key: int) -> None:
        """Begin again at key frame `key`; 0 opens the file anew, which works for formats that cannot seek."""
        container = self._container
        if key == 0 or container is None:
            self.close()
            container = self._container = open_input(self._path)
        stream: Any = container.streams[self._index.stream_index]
        if not stream.codec_context.is_open:
            stream.thread_type = "AUTO"
        if key and self._index.pts is not None:
            container.seek(int(self._index.pts[key]), stream=stream, backward=True)
        self._frames: Iterator[Any] = iter(container.decode(stream))
        self._position, self._count = _NO_STAMP_BEFORE, 0
        self._shown = self._pending = None

    def _damaged(self, frame_index: int, reason: str) -> ValueError:
        time_s = self._index.times_s[frame_index]
        return ValueError(
            f"{self._path} cannot be decoded at frame {frame_index} ({time_s:.3f} s): {reason}. "
            "The file is damaged there: copy it again, or re-encode it, or use the part before."
        )


class FileClip:
    """The `VideoClip` protocol over a video file, streamed with PyAV.

    Opening reads all packets (no decoding) for exact times and to find damage early. Times of a constant rate are
    exact multiples of 1 / `fps`; times of a variable rate are those of the file. Rotation in the file is applied.

    Args:
        path: any container and codec that PyAV reads, any bit depth.
        start_s: begin at the first frame not before this time, seconds from the first frame of the file.
        duration_s: end before `start_s + duration_s`; None: at the end of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, damaged or cut-short file, no video in it, or no frame in the chosen part.
    """

    def __init__(self, path: str | Path, *, start_s: float = 0.0, duration_s: float | None = None) -> None:
        self.path = Path(path)
        self.part_s = (float(start_s), duration_s)
        self._index = index_video(self.path)
        times = self._index.times_s - self._index.times_s[0]
        end_s = np.inf if duration_s is None else start_s + duration_s
        if not (start_s >= 0 and end_s > start_s):
            raise ValueError(
                f"A part begins at 0 s or later and lasts more than 0 s, but has {start_s=}, {duration_s=}."
            )
        inside = np.flatnonzero((times >= start_s - 1e-6) & (times < end_s - 1e-6))
        if len(inside) == 0:
            raise ValueError(
                f"The last frame of {self.path} is at {times[-1]:.3f} s, so none lies between {start_s:g} s "
                f"and {end_s:g} s."
            )
        self._offset = int(inside[0])
        self.num_frames = len(inside)
        self.height, self.width = self._index.size
        self.fps: Fraction = self._index.fps
        self.frame_times = times[inside] - times[inside[0]]
        if self._index.constant_rate:
            self.frame_times = np.arange(self.num_frames) / float(self.fps)
        self.media_start_s = float(self._index.times_s[self._offset])
        self._decoder: FrameDecoder | None = None
        self._lock = threading.Lock()

    @property
    def constant_rate(self) -> bool:
        """False if the time between frames varies; `fps` is then the average."""
        return self._index.constant_rate

    @property
    def has_audio(self) -> bool:
        """Whether the file holds sound."""
        return self._index.has_audio

    @property
    def pixel_aspect(self) -> Fraction:
        """Width / height of a pixel; 1 for nearly every file."""
        return self._index.pixel_aspect

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last one, seconds."""
        return float(self.frame_times[-1] + 1 / self.fps)

    @cached_property
    def clip_id(self) -> str:
        """Hash of the bytes of the file and of the chosen part."""
        digest = hashlib.blake2b(digest_size=16)
        with self.path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        digest.update(repr((self._offset, self.num_frames)).encode())
        return digest.hexdigest()

    def read(self, indices: Sequence[int]) -> Tensor:
        """`(n, H, W, 3)` float32 in [0, 1] for non-decreasing `indices`; decodes from the key frame before the first.

        Calls that go on where the last one stopped decode nothing twice.
        """
        with self._lock:
            if self._decoder is None:
                self._decoder = FrameDecoder(self.path, self._index)
            return self._read_with(self._decoder, check_indices(indices, self.num_frames))

    def chunks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of first frame, `(n, H, W, 3)` float32 in [0, 1]) with n <= `size`, in order; own decoder."""
        decoder = FrameDecoder(self.path, self._index)
        try:
            for start in range(0, self.num_frames, size):
                yield start, self._read_with(decoder, list(range(start, min(start + size, self.num_frames))))
        finally:
            decoder.close()

    def close(self) -> None:
        """Let go of the file; the next `read` opens it again."""
        with self._lock:
            if self._decoder is not None:
                self._decoder.close()
                self._decoder = None

    def __del__(self) -> None:
        decoder: FrameDecoder | None = getattr(self, "_decoder", None)
        if decoder is not None:
            decoder.close()

    def _read_with(self, decoder: FrameDecoder, indices: list[int]) -> Tensor:
        pictures = np.empty((len(indices), self.height, self.width, 3), dtype=np.uint8)
        for place, frame_index in enumerate(indices):
            pictures[place] = decoder.picture(self._offset + frame_index)
        return bytes_to_pictures(pictures)
