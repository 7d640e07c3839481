"""What a video file holds, found by reading its packets without decoding them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .video_colour import display_orientation, warn_about_hdr

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

_ATTACHED_PICTURE = 0x400
"""libavformat's flag of a cover picture: a stream of type video that is none."""
_WITHOUT_STAMPS = frozenset({"avi", "h264", "hevc", "mpegvideo", "m4v", "obu"})
"""Formats that store no presentation times; the ones libavformat makes up are wrong where B frames exist."""


@dataclass(frozen=True)
class VideoIndex:
    """The frames of one video stream in presentation order."""

    stream_index: int
    pts: np.ndarray | None
    """`(T,)` int64 in `time_base`; None if the file has no time stamps: then frames are found by counting."""
    is_key: np.ndarray
    """`(T,)` bool: decoding can begin here."""
    time_base: Fraction
    times_s: np.ndarray
    """`(T,)` float64 seconds on the clock of the file (the first frame need not be at 0)."""
    fps: Fraction
    constant_rate: bool
    """False: a variable frame rate; `fps` is then the average."""
    stored_width: int
    stored_height: int
    orientation: tuple[bool, bool, bool]
    pixel_aspect: Fraction
    """Width / height of one upright pixel."""
    has_audio: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright picture, px."""
        height, width = self.stored_height, self.stored_width
        return (width, height) if self.orientation[0] else (height, width)


def open_input(path: Path, **options: str) -> InputContainer:
    """Open a media file for reading.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, an empty file, or none that can be read.
    """
    import av

    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a video file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes).")
    try:
        return av.open(str(path), options=options)
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) could not be opened as a video: {error}. It is damaged, cut short, "
            "or no video file."
        ) from error


def pick_video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first real video stream; ValueError saying what the file holds instead."""
    for stream in container.streams.video:
        flags = getattr(stream, "disposition", 0)  # a plain number in some versions of PyAV
        if not int(getattr(flags, "value", flags)) & _ATTACHED_PICTURE and stream.codec_context is not None:
            return stream
    found = [f"{stream.type} ({getattr(stream.codec_context, 'name', 'unknown')})" for stream in container.streams]
    raise ValueError(f"{path} holds no video; its streams are: {', '.join(found) or 'none'}.")


def index_video(path: Path) -> VideoIndex:
    """Read all packets of `path` and decode its first picture.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, damaged, cut short, or without a video stream; the message says what was found.
    """
    with open_input(path) as container:
        stream = pick_video_stream(container, path)
        stamps, keys = _read_packets(container, stream, path)
        stream_index, time_base = stream.index, Fraction(stream.time_base or 1)
        rates = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        has_audio = any(s.codec_context is not None for s in container.streams.audio)
        stores_stamps = not _WITHOUT_STAMPS & set(container.format.name.split(","))
    first_pts, width, height, orientation = _decode_first(path, stream_index)
    if stores_stamps and first_pts is not None and None not in stamps:
        pts, first_of_each = np.unique(np.array(stamps, dtype=np.int64), return_index=True)
        is_key = np.array(keys, dtype=bool)[first_of_each]
        decodable = pts >= first_pts
        pts, is_key = pts[decodable], is_key[decodable]
        is_key[0] = True
        times = pts * float(time_base)
    else:
        pts, is_key = None, np.array(keys, dtype=bool)
        times = np.arange(len(stamps)) / float(rates[0] if rates else 25)
    fps, constant_rate = _frame_rate(times, time_base, rates)
    if constant_rate:
        times = times[0] + np.arange(len(times)) / float(fps)
    return VideoIndex(
        stream_index=stream_index,
        pts=pts,
        is_key=is_key,
        time_base=time_base,
        times_s=times,
        fps=fps,
        constant_rate=constant_rate,
        stored_width=width,
        stored_height=height,
        orientation=orientation,
        pixel_aspect=1 / pixel_aspect if orientation[0] else pixel_aspect,
        has_audio=has_audio,
    )


def _read_packets(container: InputContainer, stream: VideoStream, path: Path) -> tuple[list[int | None], list[bool]]:
    """Time stamps (decoding order) and key flags of all packets that are shown; ValueError if the file stops early."""
    import av

    stamps: list[int | None] = []
    keys: list[bool] = []
    num_whole, last_end_s = 0, 0.0
    try:
        for packet in container.demux():
            if packet.size == 0 or packet.stream.type not in ("video", "audio"):
                continue
            if packet.pts is not None and packet.time_base:
                last_end_s = max(last_end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            num_whole += not packet.is_corrupt
            if not packet.is_discard:
                stamps.append(packet.pts if packet.pts is not None else None)
                keys.append(packet.is_keyframe)
    except av.FFmpegError as error:
        logger.warning("Reading %s stopped after %d frames: %s", path, num_whole, error)
    if not stamps:
        raise ValueError(f"{path} has a {stream.codec_context.name} video stream, but no frame in it can be read.")
    _check_complete(container, stream, path, num_whole, last_end_s)
    return stamps, keys


def _check_complete(
    container: InputContainer, stream: VideoStream, path: Path, num_whole: int, last_end_s: float
) -> None:
    """ValueError if the file announces clearly more than it holds."""
    advice = "The file is cut short or damaged: copy or download it again."
    if stream.frames > num_whole and _count_without_edits(path, stream.index) < stream.frames:
        raise ValueError(f"{path} announces {stream.frames} frames, but only {num_whole} can be read. {advice}")
    if container.duration:
        announced_s = (container.duration + (container.start_time or 0)) / 1e6
        if announced_s - last_end_s > 0.5 + 0.02 * announced_s:
            raise ValueError(f"{path} announces {announced_s:.2f} s, but its data ends at {last_end_s:.2f} s. {advice}")


def _count_without_edits(path: Path, stream_index: int) -> int:
    """How many whole packets a stream holds when edit lists (which hide frames on purpose) are left out."""
    import av

    count = 0
    with open_input(path, ignore_editlist="1") as container:
        try:
            for packet in container.demux(container.streams[stream_index]):
                count += packet.size > 0 and not packet.is_corrupt
        except av.FFmpegError:
            return count
    return count


def _decode_first(path: Path, stream_index: int) -> tuple[int | None, int, int, tuple[bool, bool, bool]]:
    """(pts, width, height, orientation) of the first picture; ValueError if nothing can be decoded."""
    import av

    reason = "its packets give no picture"
    with open_input(path) as container:
        stream = container.streams[stream_index]
        try:
            for frame in container.decode(stream):
                warn_about_hdr(frame, path.name)
                return frame.pts, frame.width, frame.height, display_orientation(frame)
        except av.FFmpegError as error:
            reason = str(error)
        name = getattr(stream.codec_context, "name", "unknown codec")
    raise ValueError(f"The video stream ({name}) of {path} cannot be decoded: {reason}. The file is damaged.")


def _frame_rate(times_s: np.ndarray, time_base: Fraction, rates: list[Any]) -> tuple[Fraction, bool]:
    """(frames per second, whether all frames keep to it).

    A rate of the file counts if every stamp lies within one tick (and 1 ms, Matroska's resolution) of its grid.
    """
    if len(times_s) == 1:
        return Fraction(rates[0]) if rates else Fraction(25), True
    tolerance_s = max(1.01 * float(time_base), 0.00101)
    for rate in rates:
        grid = times_s[0] + np.arange(len(times_s)) / float(rate)
        if np.abs(times_s - grid).max() <= min(tolerance_s, 0.25 / float(rate)):
            return Fraction(rate), True
    average = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    return Fraction(average).limit_denominator(1001), False
