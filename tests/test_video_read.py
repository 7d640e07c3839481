"""FileClip and TensorClip: exact times, exact frames, colours, and damage found early."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.types import VideoClip
from dynode_pack.dynode_core.video import FileClip, TensorClip, exact_fps
from dynode_pack.dynode_core.video_colour import CAREFUL
from dynode_pack.dynode_core.video_read import FrameDecoder

HEIGHT, WIDTH = 64, 96


def numbered_picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """`(height, width, 3)` uint8: eight blocks that spell `number` in bits."""
    picture = np.full((height, width, 3), 40, dtype=np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            picture[:, bit * width // 8 : (bit + 1) * width // 8] = 210
    return picture


def number_in(picture: torch.Tensor) -> int:
    """The number that `numbered_picture` wrote, from `(H, W, 3)` in [0, 1]."""
    width = picture.shape[1]
    centres = [int((bit + 0.5) * width / 8) for bit in range(8)]
    return sum(1 << bit for bit, x in enumerate(centres) if float(picture[picture.shape[0] // 2, x].mean()) > 0.5)


def make_file(
    path: Path,
    num_frames: int = 20,
    *,
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    stamps: list[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    gop: int = 8,
    matrix: int | None = None,
    full_range: bool = False,
    pictures: list[np.ndarray] | None = None,
) -> Path:
    """A file with numbered pictures, B frames, and a key frame every `gop` frames."""
    pictures = pictures or [numbered_picture(i) for i in range(num_frames)]
    reformatter = av.video.reformatter.VideoReformatter()
    color_range = 2 if full_range else 1
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "g": str(gop), "bf": "2"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if stamps is not None:
            stream.codec_context.time_base = time_base
        if matrix is not None:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = color_range
        for i, picture in enumerate(pictures):
            frame = reformatter.reformat(
                av.VideoFrame.from_ndarray(picture, format="rgb24"),
                format=pix_fmt,
                interpolation=CAREFUL,
                src_color_range=2,
                dst_colorspace=1 if matrix == 1 else 5,
                dst_color_range=color_range,
            )
            frame.time_base = time_base if stamps is not None else 1 / rate
            frame.pts = stamps[i] if stamps is not None else i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_frames_times_and_rate_are_exact(tmp_path: Path) -> None:
    clip = FileClip(make_file(tmp_path / "a.mp4", rate=Fraction(30000, 1001)))
    assert isinstance(clip, VideoClip)
    assert (clip.num_frames, clip.height, clip.width) == (20, HEIGHT, WIDTH)
    assert clip.fps == Fraction(30000, 1001) and clip.constant_rate
    np.testing.assert_array_equal(clip.frame_times, np.arange(20) / (30000 / 1001))
    seen = [number_in(frame) for _, chunk in clip.chunks(7) for frame in chunk]
    assert seen == list(range(20))


@pytest.mark.parametrize("indices", [[0], [19], [3, 3, 4], [0, 19], [7, 8, 9], [15, 16], [], [5, 12, 18]])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_any_frames_are_read_in_any_order_of_calls(tmp_path: Path, suffix: str, indices: list[int]) -> None:
    clip = FileClip(make_file(tmp_path / f"a{suffix}"))
    assert clip.fps == 25 and clip.num_frames == 20
    for wanted in (indices, [11], indices):
        frames = clip.read(wanted)
        assert frames.dtype == torch.float32 and frames.shape == (len(wanted), HEIGHT, WIDTH, 3)
        assert [number_in(frame) for frame in frames] == wanted


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = FileClip(make_file(tmp_path / "a.mp4", 120, gop=10))
    decoded: list[int] = []
    decode = FrameDecoder._next_frame

    def counting(decoder: FrameDecoder, frame_index: int) -> object:
        decoded.append(frame_index)
        return decode(decoder, frame_index)

    monkeypatch.setattr(FrameDecoder, "_next_frame", counting)
    assert number_in(clip.read([117])[0]) == 117
    assert len(decoded) <= 12
    assert number_in(clip.read([118])[0]) == 118
    assert len(decoded) <= 13


def test_time_stamps_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 200, 210, 300, 333, 700]
    clip = FileClip(make_file(tmp_path / "vfr.mp4", len(stamps), stamps=stamps))
    assert not clip.constant_rate
    np.testing.assert_allclose(clip.frame_times, np.array(stamps) / 1000, atol=1e-9)
    assert float(clip.fps) == pytest.approx(7 / 0.7, rel=1e-4)
    assert [number_in(frame) for frame in clip.read(range(len(stamps)))] == list(range(len(stamps)))


def test_part_of_a_file_begins_at_its_own_time_zero(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.mp4")
    clip = FileClip(path, start_s=0.2, duration_s=0.4)
    assert clip.num_frames == 10 and clip.frame_times[0] == 0 and clip.duration_s == pytest.approx(0.4)
    assert [number_in(frame) for frame in clip.read([0, 9])] == [5, 14]
    assert clip.clip_id != FileClip(path).clip_id
    with pytest.raises(ValueError, match="none lies between"):
        FileClip(path, start_s=5)
    with pytest.raises(ValueError, match="begins at 0 s or later"):
        FileClip(path, start_s=-1)


@pytest.mark.parametrize(
    ("height", "matrix", "full_range"), [(64, 6, False), (64, None, False), (720, 1, False), (64, 6, True)]
)
def test_flat_colours_survive_matrix_and_range(
    tmp_path: Path, height: int, matrix: int | None, full_range: bool
) -> None:
    colours = np.array(
        [[230, 30, 40], [20, 200, 60], [30, 60, 220], [128, 128, 128], [250, 240, 10], [5, 5, 5]], np.uint8
    )
    pictures = [np.broadcast_to(colour, (height, 96, 3)).copy() for colour in colours]
    path = make_file(tmp_path / "a.mp4", matrix=matrix, full_range=full_range, pictures=pictures)
    frames = FileClip(path).read(range(len(colours)))[:, height // 2, 48] * 255
    np.testing.assert_allclose(frames.numpy(), colours, atol=2)


def test_ten_bit_files_are_read(tmp_path: Path) -> None:
    colours = np.array([[230, 30, 40], [128, 128, 128]], np.uint8)
    pictures = [np.broadcast_to(colour, (64, 96, 3)).copy() for colour in colours]
    clip = FileClip(make_file(tmp_path / "a.mp4", pix_fmt="yuv420p10le", matrix=1, pictures=pictures))
    np.testing.assert_allclose(clip.read([0, 1])[:, 32, 48].numpy() * 255, colours, atol=2)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
    ],
    ids=["clockwise", "counterclockwise", "half turn", "mirrored", "upside down"],
)
def test_rotation_in_the_file_is_applied(tmp_path: Path, matrix: tuple[int, ...], turn: object) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:], picture[32:, :48] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    path = make_file(tmp_path / "a.mp4", pictures=[picture] * 3, matrix=6)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0: times and ids, reserved, layer to volume
    a, b, c, d = (value * 65536 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    clip = FileClip(path)
    expected = turn(picture)
    assert (clip.height, clip.width) == expected.shape[:2]
    got = clip.read([1])[0].numpy() * 255
    h, w = expected.shape[:2]
    for y in (h // 4, 3 * h // 4):
        for x in (w // 4, 3 * w // 4):
            np.testing.assert_allclose(got[y, x], expected[y, x], atol=4)


def test_broken_files_are_named_before_any_work(tmp_path: Path) -> None:
    empty, text, folder = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "folder.mp4"
    empty.touch(), text.write_text("no video " * 500), folder.mkdir()
    with pytest.raises(ValueError, match=r"empty\.mp4 is empty"):
        FileClip(empty)
    with pytest.raises(ValueError, match=r"text\.mp4 .*could not be opened"):
        FileClip(text)
    with pytest.raises(ValueError, match="is a folder"):
        FileClip(folder)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        FileClip(tmp_path / "gone.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_cut_short_files_are_named_before_any_work(tmp_path: Path, suffix: str, share: float) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(60)]
    whole = make_file(tmp_path / f"whole{suffix}", pictures=pictures)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    with pytest.raises(ValueError, match=rf"cut\{suffix}"):
        FileClip(cut)


def test_a_cut_short_file_with_its_index_in_front_is_named(tmp_path: Path) -> None:
    from dynode_pack.dynode_core.video import VideoWriter

    with VideoWriter(tmp_path / "whole.mp4", 25) as writer:
        writer.write(torch.rand(50, 64, 96, 3, generator=torch.Generator().manual_seed(0)))
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=r"cut\.mp4 announces 50 frames, but only \d+ can be read"):
        FileClip(tmp_path / "cut.mp4")


def test_damage_inside_is_an_error_that_says_where(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(30)]
    path = make_file(tmp_path / "a.mkv", pictures=pictures, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    start = data.index(b"\xff\xd8", middle)
    end = data.index(b"\xff\xd9", start)
    data[start : end + 2] = bytes(end + 2 - start)
    path.write_bytes(data)
    clip = FileClip(path)
    with pytest.raises(ValueError, match=r"a\.mkv cannot be decoded at frame \d+"):
        list(clip.chunks(4))


def test_sound_without_pictures_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"sound\.mp4 holds no video; its streams are: audio \(aac\)"):
        FileClip(path)


def test_clip_id_follows_the_content(tmp_path: Path) -> None:
    first, same, other = (make_file(tmp_path / f"{n}.mkv", k, codec="ffv1") for n, k in (("a", 5), ("b", 5), ("c", 6)))
    same.write_bytes(first.read_bytes())
    assert FileClip(first).clip_id == FileClip(same).clip_id != FileClip(other).clip_id
    frames = torch.rand(3, 8, 8, 3)
    assert TensorClip(frames, 25).clip_id == TensorClip(frames.clone(), 25).clip_id
    assert TensorClip(frames, 25).clip_id != TensorClip(frames, 30).clip_id
    assert TensorClip(frames, 25).clip_id != TensorClip(frames.flip(0), 25).clip_id


def test_tensor_clip_reads_and_chunks() -> None:
    frames = torch.rand(5, 8, 9, 3)
    clip = TensorClip(frames, 29.97)
    assert isinstance(clip, VideoClip) and clip.fps == Fraction(30000, 1001) and clip.path is None
    assert torch.equal(clip.read([1, 1, 4]), frames[[1, 1, 4]])
    assert [(start, len(chunk)) for start, chunk in clip.chunks(2)] == [(0, 2), (2, 2), (4, 1)]
    before = frames.clone()
    clip.read([0]).zero_()
    assert torch.equal(frames, before)
    assert TensorClip(torch.rand(2, 8, 9, 4), 25).read([0]).shape == (1, 8, 9, 3)


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (torch.rand(0, 8, 8, 3), 25, "is empty"),
        (torch.rand(8, 8, 3), 25, r"\(T, H, W, 3\)"),
        (torch.rand(2, 3, 8, 8), 25, r"\(T, H, W, 3\)"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), 25, "float"),
        (torch.full((2, 8, 8, 3), torch.nan), 25, "NaN"),
        (torch.rand(2, 8, 8, 3), 0, "above 0"),
        (torch.rand(2, 8, 8, 3), float("nan"), "above 0"),
    ],
)
def test_tensor_clip_says_what_is_wrong(frames: torch.Tensor, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorClip(frames, fps)


@pytest.mark.parametrize("read", [[2, 1], [0, 5], [-1]])
def test_indices_outside_or_going_back_are_refused(read: list[int]) -> None:
    with pytest.raises(ValueError, match="Frames"):
        TensorClip(torch.rand(5, 8, 8, 3), 25).read(read)


@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (25.0, Fraction(25)),
        (12.5, Fraction(25, 2)),
        ("30000/1001", Fraction(30000, 1001)),
        (Fraction(2997, 100), Fraction(2997, 100)),
        (24, Fraction(24)),
    ],
)
def test_rounded_rates_mean_exact_ones(rate: object, exact: Fraction) -> None:
    assert exact_fps(rate) == exact
