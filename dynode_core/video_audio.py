"""The sound of a source file carried into a new one: copied as it is, or stretched with its pitch kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .video_index import open_input

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

logger = logging.getLogger(__name__)

MP4_AUDIO_CODECS = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "flac", "alac"})
"""Codecs that players expect in MP4 and that are copied; others are encoded to AAC."""
_AAC_BIT_RATE = 192_000
_ATEMPO_MIN, _ATEMPO_MAX = 0.5, 4.0


class AudioTrack(Protocol):
    """Sound that follows the pictures of a file being written."""

    def advance(self, until_s: float) -> None:
        """Write all sound that plays before `until_s`, seconds of the new file."""
        ...

    def finish(self, end_s: float) -> None:
        """Write the rest up to `end_s`, the end of the last picture, and let go of the source."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


def add_audio(output: OutputContainer, source: Path, start_s: float, speed: float) -> AudioTrack | None:
    """Add a sound stream to `output` before its first packet is written.

    Args:
        source: media file with the sound.
        start_s: second of `source` (on its own clock) that the first new picture shows.
        speed: seconds of the source per second of the new file; 1 copies the packets.

    Returns:
        What writes the sound, or None if `source` has none that can be read.
    """
    container = open_input(source)
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not streams:
        container.close()
        return None
    try:
        if speed == 1 and streams[0].codec_context.name in MP4_AUDIO_CODECS:
            return CopiedAudio(output, container, streams[0], start_s)
        return EncodedAudio(output, container, streams[0], start_s, speed)
    except BaseException:
        container.close()
        raise


class CopiedAudio:
    """Packets taken over without decoding: no loss, no change of timing."""

    def __init__(self, output: OutputContainer, container: InputContainer, stream: Any, start_s: float) -> None:
        self._output, self._container = output, container
        self._stream = output.add_stream_from_template(stream)
        self._time_base: Fraction = stream.time_base
        self._start = round(start_s / self._time_base)
        self._packets = self._wanted_packets(stream)
        self._waiting: Packet | None = None

    def _wanted_packets(self, stream: Any) -> Iterator[Packet]:
        """Packets that end after the start, plus the one before, which the decoder needs to begin cleanly."""
        before: Packet | None = None
        for packet in self._container.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            if packet.pts + (packet.duration or 0) <= self._start:
                before = packet
                continue
            if before is not None:
                yield before
                before = None
            yield packet

    def advance(self, until_s: float) -> None:
        """Write all packets that begin before `until_s`."""
        while True:
            packet, self._waiting = self._waiting or next(self._packets, None), None
            if packet is None:
                return
            if (packet.pts - self._start) * self._time_base >= until_s:
                self._waiting = packet
                return
            packet.pts -= self._start
            packet.dts -= self._start
            packet.stream = self._stream
            self._output.mux(packet)

    def finish(self, end_s: float) -> None:
        """Write the rest up to `end_s`."""
        self.advance(end_s)
        self.close()

    def close(self) -> None:
        """Let go of the source."""
        self._container.close()


class EncodedAudio:
    """Sound decoded, played `speed` times as fast at the same pitch, and encoded to AAC."""

    def __init__(
        self, output: OutputContainer, container: InputContainer, stream: Any, start_s: float, speed: float
    ) -> None:
        self._output, self._container, self._speed = output, container, speed
        self._source, self._start_s = stream, start_s
        self._rate = stream.codec_context.sample_rate
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        self._encoder = output.add_stream("aac", rate=self._rate, layout=layout)
        self._encoder.bit_rate = _AAC_BIT_RATE
        self._layout = layout
        self._next_sample = 0
        self._begun = False
        self._frames = self._stretched_frames()
        self._waiting: AudioFrame | None = None

    def advance(self, until_s: float) -> None:
        """Encode all sound that begins before `until_s` (by blocks of about 20 ms)."""
        while True:
            frame, self._waiting = self._waiting or next(self._frames, None), None
            if frame is None:
                return
            if frame.pts / self._rate >= until_s:
                self._waiting = frame
                return
            self._output.mux(self._encoder.encode(frame))

    def finish(self, end_s: float) -> None:
        """Encode the rest up to `end_s`."""
        self.advance(end_s)
        self._output.mux(self._encoder.encode(None))
        self.close()

    def close(self) -> None:
        """Let go of the source."""
        self._container.close()

    def _stretched_frames(self) -> Iterator[AudioFrame]:
        """Blocks with `pts` in samples of the new file, none before 0."""
        import av

        graph = self._build_graph()
        try:
            for frame in self._container.decode(self._source):
                if frame.pts is None:
                    continue
                begin_s = frame.pts * frame.time_base
                if begin_s + Fraction(frame.samples, frame.sample_rate) <= self._start_s:
                    continue
                if not self._begun:
                    self._begun = True
                    self._next_sample = round((begin_s - self._start_s) / self._speed * self._rate)
                graph.push(frame)
                yield from self._pull(graph)
        except av.FFmpegError as error:
            logger.warning("The sound of the source cannot be read to its end: %s", error)
        if self._begun:
            graph.push(None)
            yield from self._pull(graph)

    def _pull(self, graph: Any) -> Iterator[AudioFrame]:
        """Blocks that are ready, numbered on; a block that begins before the first picture is moved to it."""
        import av

        while True:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            frame.pts, frame.time_base = max(self._next_sample, 0), Fraction(1, self._rate)
            self._next_sample += frame.samples
            yield frame

    def _build_graph(self) -> Any:
        """abuffer -> atempo (as many as the factor needs) -> aformat -> abuffersink."""
        from av.filter import Graph

        graph = Graph()
        nodes = [graph.add_abuffer(template=self._source)]
        nodes += [graph.add("atempo", f"{factor:.9f}") for factor in atempo_factors(self._speed)]
        nodes.append(graph.add("aformat", f"sample_fmts=fltp:sample_rates={self._rate}:channel_layouts={self._layout}"))
        nodes.append(graph.add("abuffersink"))
        for left, right in zip(nodes, nodes[1:], strict=False):
            left.link_to(right)
        graph.configure()
        return graph


def atempo_factors(speed: float) -> list[float]:
    """Factors whose product is `speed`, each within the range in which FFmpeg's atempo neither drops samples nor fails.

    Raises:
        ValueError: `speed` is not positive.
    """
    if not speed > 0:
        raise ValueError(f"The speed of the sound should be above 0, but is {speed}.")
    if speed == 1:
        return []
    count = 1
    while not _ATEMPO_MIN <= speed ** (1 / count) <= _ATEMPO_MAX:
        count += 1
    return [speed ** (1 / count)] * count
