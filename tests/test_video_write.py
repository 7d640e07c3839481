"""VideoWriter: what is written is what comes back, with its sound, or nothing at all."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.video import FileClip, TensorClip, VideoWriter
from dynode_pack.dynode_core.video_audio import atempo_factors

RATE = 44100


def smooth_frames(num_frames: int, height: int, width: int) -> torch.Tensor:
    """`(n, height, width, 3)` slowly varying colours that differ from frame to frame."""
    y = torch.linspace(0, 1, height)[None, :, None, None]
    x = torch.linspace(0, 1, width)[None, None, :, None]
    t = torch.arange(num_frames)[:, None, None, None] / max(num_frames, 2)
    phase = torch.tensor([0.0, 1.0, 2.0])
    return 0.5 + 0.4 * torch.sin(2 * x + 1.5 * y + 3 * t + phase)


def source_with_sine(
    path: Path, seconds: float = 2.0, codec: str = "aac", hz: float = 440.0, layout: str = "mono"
) -> Path:
    """25 fps pictures and a sine that is silent in the first half second."""
    num_samples = round(seconds * RATE)
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(num_samples) / RATE)
    wave[: RATE // 2] = 0
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = container.add_stream(codec, rate=RATE, layout=layout)
        for i in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * i % 250, np.uint8), format="rgb24")
            frame.pts = i
            container.mux(video.encode(frame.reformat(format="yuv420p")))
        fifo = av.AudioFifo()
        data = np.repeat(wave[None], 2 if layout == "stereo" else 1, 0)
        is_float = codec in ("aac", "libopus")
        block = data.astype(np.float32) if is_float else (data * 32767).astype(np.int16)[:1]
        frame = av.AudioFrame.from_ndarray(block, format="fltp" if is_float else "s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        fifo.write(frame)
        while part := fifo.read(1024, partial=True):
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def sound_of(path: Path) -> tuple[np.ndarray, float]:
    """(samples of the first channel, time of the first one in seconds)."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        resampled = [f.to_ndarray() for f in frames]
        start = float(frames[0].pts * frames[0].time_base)
    return np.concatenate([f[0] for f in resampled]).astype(np.float64), start


def onset_s(samples: np.ndarray) -> float:
    """When the sine of `source_with_sine` begins."""
    loud = np.abs(samples) > 0.1 * np.abs(samples).max()
    return float(np.flatnonzero(loud)[0]) / RATE


def pitch_hz(samples: np.ndarray) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / RATE)[spectrum.argmax()])


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


@pytest.mark.parametrize("size", [(64, 96), (720, 1280)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_what_is_written_comes_back(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    frames = smooth_frames(5, *size)
    with VideoWriter(tmp_path / "new folder" / f"a{suffix}", 29.97, size) as writer:
        writer.write(frames[:2])
        writer.write(frames[2:])
    clip = FileClip(writer.path)
    assert (clip.num_frames, clip.fps) == (5, Fraction(30000, 1001))
    assert float((clip.read(range(5)) - frames).abs().mean()) < 1.5 / 255
    assert [p.name for p in writer.path.parent.iterdir()] == [writer.path.name]


@pytest.mark.parametrize("size", [(64, 96), (720, 1280)])
def test_flat_colours_come_back_within_two_levels(tmp_path: Path, size: tuple[int, int]) -> None:
    colours = torch.tensor(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [255, 255, 255], [0, 0, 0], [200, 150, 120]]
    )
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for colour in colours:
            writer.write((colour / 255).expand(1, *size, 3))
    back = FileClip(writer.path).read(range(len(colours))) * 255
    assert float((back - colours[:, None, None]).abs().max()) <= 2


def test_colours_are_tagged(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(torch.rand(2, 32, 32, 3))
    with av.open(str(writer.path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"


def test_odd_sizes_gain_a_repeated_row_and_column_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = smooth_frames(3, 51, 77)
    with VideoWriter(tmp_path / "a.mp4", 25, (51, 77)) as writer:
        writer.write(frames)
    assert writer.padded == (1, 1) and "repeated" in caplog.text
    clip = FileClip(writer.path)
    assert (clip.height, clip.width) == (52, 78)
    assert float((clip.read([0, 1, 2])[:, :51, :77] - frames).abs().mean()) < 1.5 / 255


def test_variable_times_are_written(tmp_path: Path) -> None:
    times = np.array([0, 0.04, 0.1, 0.35, 0.4])
    with VideoWriter(tmp_path / "a.mp4", 25, frame_times=times) as writer:
        writer.write(smooth_frames(5, 32, 48))
    np.testing.assert_allclose(FileClip(writer.path).frame_times, times, atol=2e-5)


def test_values_outside_are_clamped_and_inputs_left_alone(tmp_path: Path) -> None:
    frames = torch.full((2, 32, 32, 3), 1.7)
    frames[:, :16] = -0.5
    before = frames.clone()
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frames)
    assert torch.equal(frames, before)
    back = FileClip(writer.path).read([0])[0]
    assert float(back[:14].max()) < 0.02 and float(back[18:].min()) > 0.98


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_sound_is_copied_bit_by_bit(tmp_path: Path, codec: str) -> None:
    source = FileClip(source_with_sine(tmp_path / "source.mp4", codec=codec))
    with VideoWriter(tmp_path / "a.mp4", source.fps, audio_from=source) as writer:
        for _, frames in source.chunks(8):
            writer.write(frames)
    ours, theirs = packets_of(writer.path), packets_of(source.path)
    assert ours == theirs[: len(ours)] and len(theirs) - len(ours) <= 2
    assert onset_s(sound_of(writer.path)[0]) == pytest.approx(onset_s(sound_of(source.path)[0]), abs=1e-3)
    assert sound_of(writer.path)[1] == pytest.approx(sound_of(source.path)[1], abs=1e-3)


def test_codecs_that_mp4_players_do_not_expect_are_encoded(tmp_path: Path) -> None:
    source = FileClip(source_with_sine(tmp_path / "source.mkv", codec="pcm_s16le"))
    with VideoWriter(tmp_path / "a.mp4", source.fps, audio_from=source) as writer:
        writer.write(source.read(range(source.num_frames)))
    samples, _ = sound_of(writer.path)
    assert onset_s(samples) == pytest.approx(0.5, abs=0.03)
    assert pitch_hz(samples[RATE:]) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("speed", [0.25, 0.5, 2.0, 6.0])
def test_stretched_sound_keeps_its_pitch(tmp_path: Path, speed: float) -> None:
    source = FileClip(source_with_sine(tmp_path / "source.mp4"))
    num_frames = round(source.num_frames / speed)
    with VideoWriter(tmp_path / "a.mp4", source.fps, audio_from=source, speed=speed) as writer:
        writer.write(torch.zeros(num_frames, 48, 64, 3))
    samples, start = sound_of(writer.path)
    assert pitch_hz(samples[int(RATE * 1.0 / speed) :]) == pytest.approx(440, abs=6)
    assert start + onset_s(samples) == pytest.approx(0.5 / speed, abs=0.1)
    assert len(samples) / RATE == pytest.approx(2 / speed, abs=0.12)


def test_sound_begins_where_the_part_begins(tmp_path: Path) -> None:
    path = source_with_sine(tmp_path / "source.mp4")
    source = FileClip(path, start_s=0.4, duration_s=1.0)
    with VideoWriter(tmp_path / "a.mp4", source.fps, audio_from=source) as writer:
        writer.write(source.read(range(source.num_frames)))
    samples, start = sound_of(writer.path)
    assert start + onset_s(samples) == pytest.approx(0.1, abs=0.03)
    assert len(samples) / RATE == pytest.approx(1.0, abs=0.06)
    assert FileClip(writer.path).frame_times[0] == 0


def test_a_source_without_sound_or_file_gives_a_silent_video(tmp_path: Path) -> None:
    frames = smooth_frames(3, 32, 32)
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frames)
    for source in (FileClip(tmp_path / "a.mp4"), TensorClip(frames, 25)):
        with VideoWriter(tmp_path / "b.mp4", 25, audio_from=source, speed=0.5) as writer:
            writer.write(frames)
        with av.open(str(writer.path)) as container:
            assert not container.streams.audio


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_nothing_and_an_old_one_stays(tmp_path: Path, error: type[BaseException]) -> None:
    source = FileClip(source_with_sine(tmp_path / "source.mp4"))
    (tmp_path / "a.mp4").write_bytes(b"the old one")
    with pytest.raises(error), VideoWriter(tmp_path / "a.mp4", 25, audio_from=source) as writer:
        writer.write(torch.rand(3, 32, 32, 3))
        assert (tmp_path / "a.part.mp4").exists()
        raise error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "source.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"the old one"


def test_nothing_written_is_an_error_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No frame was written"), VideoWriter(tmp_path / "a.mp4", 25):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.rand(2, 32, 40, 3), "32 rows x 32 columns"),
        (torch.rand(2, 3, 32, 32), r"\(n, H, W, 3\)"),
        (torch.full((2, 32, 32, 3), torch.nan), "NaN"),
    ],
)
def test_wrong_frames_are_refused(tmp_path: Path, frames: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message), VideoWriter(tmp_path / "a.mp4", 25, (32, 32)) as writer:
        writer.write(frames)
    assert not list(tmp_path.iterdir())


def test_wrong_names_and_speeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.mp4, \.m4v, \.mov, \.mkv"):
        VideoWriter(tmp_path / "a.gif", 25)
    with pytest.raises(ValueError, match="speed"):
        VideoWriter(tmp_path / "a.mp4", 25, speed=0)


@pytest.mark.parametrize("speed", [1 / 40, 0.25, 0.5, 0.9, 1.0, 2.0, 5.0, 100.0])
def test_tempo_factors_multiply_to_the_speed(speed: float) -> None:
    factors = atempo_factors(speed)
    assert np.prod(factors) == pytest.approx(speed)
    assert all(0.5 <= factor <= 4 for factor in factors)
