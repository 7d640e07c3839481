"""Files between the steps of the command line: what is read equals what was written, and damage is named."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dynode_pack.dynode_core.artifacts import load_artifact, plain_facts, save_artifact, save_direction
from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.editing import load_direction
from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times
from dynode_pack.dynode_core.types import (
    AlignedClip,
    EditDirection,
    EditedLatent,
    FaceTexture,
    FaceTrack,
    InvertedClip,
    LatentTrajectory,
    TrajectorySample,
)
from dynode_pack.dynode_core.video import FileClip, VideoWriter

FRAMES, SIDE, ROWS, WIDTH = 6, 32, 4, 16


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    with VideoWriter(path, Fraction(30000, 1001), (SIDE, SIDE)) as writer:
        writer.write(torch.rand(FRAMES, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0)))
    return path


def aligned_clip(clip: Any) -> AlignedClip:
    random = np.random.default_rng(0)
    count = clip.num_frames
    track = FaceTrack(
        landmarks=random.uniform(0, SIDE, (count, 478, 2)),
        boxes=random.uniform(0, SIDE, (count, 4)),
        scores=random.uniform(0, 1, count).astype(np.float32),
        detected=np.arange(count) != 1,
        blendshapes=random.uniform(0, 1, (count, 52)).astype(np.float32),
        pose_deg=random.uniform(-30, 30, (count, 3)).astype(np.float32),
        present=np.arange(count) != 2,
        segments=np.array([[0, 2], [2, count]]),
        sharpness=random.uniform(1, 2, count).astype(np.float32),
        fitted=np.arange(count) > 1,
    )
    return AlignedClip(clip=clip, quads=random.uniform(0, SIDE, (count, 4, 2)), track=track, crop_size=256)


@pytest.fixture
def codes() -> InvertedClip:
    random = torch.Generator().manual_seed(1)
    steps = torch.linspace(0, 1, 5)[:, None, None]
    w_plus = torch.randn(1, ROWS, WIDTH, generator=random) + steps * torch.randn(1, ROWS, WIDTH, generator=random)
    return InvertedClip(
        w_plus=w_plus + 0.01 * torch.randn(5, ROWS, WIDTH, generator=random),
        times=np.arange(5) / 10.0,
        frame_indices=np.arange(5),
        loss=np.linspace(0.1, 0.2, 5).astype(np.float32),
        frame_times=np.arange(9) / 20.0,
        fps=Fraction(30000, 1001),
        family="test-family",
        generator_id="0123",
        report={"steps": np.arange(3), "mean": np.float32(0.5), "note": "x"},
        cuts_s=np.array([0.125]),
    )


def assert_same(a: Any, b: Any, names: tuple[str, ...]) -> None:
    for name in names:
        one, other = getattr(a, name), getattr(b, name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other) and one.dtype == other.dtype, name
        elif isinstance(one, np.ndarray):
            assert np.array_equal(one, other) and one.dtype == other.dtype, name
        else:
            assert one == other and type(one) is type(other), name


def test_alignment_comes_back_with_its_clip(film: Path, tmp_path: Path) -> None:
    aligned = aligned_clip(FileClip(film, start_s=0.03, duration_s=0.1))
    save_artifact(aligned, tmp_path / "a.safetensors")
    read = load_artifact(tmp_path / "a.safetensors", AlignedClip)
    assert_same(aligned, read, ("quads", "crop_size"))
    assert_same(aligned.track, read.track, tuple(field.name for field in dataclasses.fields(FaceTrack)))
    assert read.clip.clip_id == aligned.clip.clip_id
    assert read.clip.num_frames == aligned.clip.num_frames == 3


def test_alignment_of_a_video_that_changed_is_refused(film: Path, tmp_path: Path) -> None:
    save_artifact(aligned_clip(FileClip(film)), tmp_path / "a.safetensors")
    with VideoWriter(film, 25, (SIDE, SIDE)) as writer:
        writer.write(torch.zeros(FRAMES, SIDE, SIDE, 3))
    with pytest.raises(ValueError, match="has changed"):
        load_artifact(tmp_path / "a.safetensors")
    film.unlink()
    with pytest.raises(FileNotFoundError, match="film.mp4"):
        load_artifact(tmp_path / "a.safetensors")


def test_alignment_of_a_clip_in_memory_has_no_file_form(tmp_path: Path) -> None:
    aligned = aligned_clip(TensorClip(torch.zeros(2, SIDE, SIDE, 3), 25))
    with pytest.raises(ValueError, match="video file"):
        save_artifact(aligned, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_codes_come_back(codes: InvertedClip, tmp_path: Path) -> None:
    save_artifact(codes, tmp_path / "deep" / "codes.safetensors")
    read = load_artifact(tmp_path / "deep" / "codes.safetensors", InvertedClip)
    names = ("w_plus", "times", "frame_indices", "loss", "frame_times", "fps", "family", "generator_id", "cuts_s")
    assert_same(codes, read, names)
    assert read.report == {"steps": [0, 1, 2], "mean": 0.5, "note": "x"}
    save_artifact(dataclasses.replace(codes, cuts_s=None), tmp_path / "older.safetensors")
    assert load_artifact(tmp_path / "older.safetensors").cuts_s is None


def test_trajectory_solves_to_the_same_codes_after_reading(codes: InvertedClip, tmp_path: Path) -> None:
    trajectory = fit_trajectory(codes, TrajectorySettings())
    save_artifact(trajectory, tmp_path / "t.safetensors")
    read = load_artifact(tmp_path / "t.safetensors", (EditedLatent, LatentTrajectory))
    times = np.linspace(0, 0.4, 7)
    assert torch.equal(solve_at_times(trajectory, times).w_plus, solve_at_times(read, times).w_plus)


def test_latent_comes_back(tmp_path: Path) -> None:
    latent = EditedLatent(torch.ones(ROWS, WIDTH), torch.zeros(ROWS, WIDTH), ("smile=2", "yaw=1@0-3"), "test-family")
    save_artifact(latent, tmp_path / "l.safetensors")
    read = load_artifact(tmp_path / "l.safetensors", EditedLatent)
    assert_same(latent, read, ("w_plus_0", "base_w_plus_0", "edits", "family"))


def test_texture_comes_back(tmp_path: Path) -> None:
    pictures = [torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(channels)) for channels in (3, 3, 1)]
    texture = FaceTexture(*pictures, landmarks=np.random.default_rng(0).random((68, 2)), frame_index=7)
    save_artifact(texture, tmp_path / "t.safetensors")
    read = load_artifact(tmp_path / "t.safetensors", FaceTexture)
    assert_same(texture, read, ("shown", "detail", "alpha", "landmarks", "frame_index"))


def sample(base: torch.Tensor, edited: torch.Tensor) -> TrajectorySample:
    return TrajectorySample(edited, base, np.arange(3) / 7, Fraction(25), "test-family", "0123", nfe=12)


def test_sample_comes_back(tmp_path: Path) -> None:
    original = sample(torch.zeros(3, ROWS, WIDTH), torch.ones(3, ROWS, WIDTH))
    save_artifact(original, tmp_path / "s.safetensors")
    read = load_artifact(tmp_path / "s.safetensors", TrajectorySample)
    names = ("w_plus", "base_w_plus", "times", "fps", "family", "generator_id", "nfe", "status", "edits")
    assert_same(original, read, names)


def test_sample_without_an_edit_is_still_known_to_have_none(tmp_path: Path) -> None:
    codes = torch.ones(3, ROWS, WIDTH)
    save_artifact(sample(codes, codes), tmp_path / "s.safetensors")
    read = load_artifact(tmp_path / "s.safetensors")
    assert read.w_plus is read.base_w_plus


@pytest.mark.parametrize("rows", [torch.arange(16.0), torch.arange(64.0).reshape(4, 16)])
def test_direction_is_readable_as_a_direction(rows: torch.Tensor, tmp_path: Path) -> None:
    save_direction(EditDirection("grin", rows, "ffhq-w"), tmp_path / "grin.safetensors")
    read = load_direction(tmp_path / "grin.safetensors")
    assert read.name == "grin"
    assert torch.equal(read.direction, rows)


def test_wrong_step_is_named(codes: InvertedClip, tmp_path: Path) -> None:
    save_artifact(codes, tmp_path / "codes.safetensors")
    with pytest.raises(ValueError, match=r"holds a codes \(made by `invert`\).*made by fit or edit"):
        load_artifact(tmp_path / "codes.safetensors", (LatentTrajectory, EditedLatent))


def test_damage_is_named(codes: InvertedClip, tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    with pytest.raises(FileNotFoundError, match="codes.safetensors"):
        load_artifact(path)
    save_artifact(codes, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        load_artifact(path)
    save_file({"x": torch.zeros(1)}, str(path))
    with pytest.raises(ValueError, match="not written by ComfyUI-DynODE"):
        load_artifact(path)


def test_missing_array_is_named(codes: InvertedClip, tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    save_artifact(codes, path)
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    save_file({"w_plus": codes.w_plus}, str(path), metadata=metadata)
    with pytest.raises(ValueError, match="'times' is missing"):
        load_artifact(path)


def test_newer_version_is_refused(codes: InvertedClip, tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    header = json.dumps({"kind": "codes", "version": 99})
    save_file({"w_plus": codes.w_plus}, str(path), metadata={"dynode": header})
    with pytest.raises(ValueError, match="version 99"):
        load_artifact(path)


def test_failed_write_leaves_the_old_file(codes: InvertedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "codes.safetensors"
    save_artifact(codes, path)
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("dynode_pack.dynode_core.artifacts.os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_artifact(replace(codes, family="other"), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["codes.safetensors"]


def test_report_values_become_plain_json() -> None:
    facts = plain_facts({"a": np.float64(1.5), "b": torch.tensor([1, 2]), "c": (np.int64(3), None), 4: Fraction(1, 3)})
    assert json.loads(json.dumps(facts)) == {"a": 1.5, "b": [1, 2], "c": [3, None], "4": "1/3"}
