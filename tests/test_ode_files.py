"""Trajectory files and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import FAMILY, inverted_clip, smooth_codes
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dynode_pack.dynode_core.ode import (
    GradientSettings,
    fit_trajectory,
    load_trajectory,
    plot_trajectory,
    save_trajectory,
    solve_at_times,
    train_trajectory,
)
from dynode_pack.dynode_core.types import EditedLatent, LatentTrajectory


@pytest.fixture(scope="module")
def trajectory() -> LatentTrajectory:
    codes = smooth_codes(40)
    codes[25:] += 3.0
    return fit_trajectory(inverted_clip(codes, np.arange(40) / 25))


def test_a_loaded_trajectory_solves_to_the_same_codes(trajectory: LatentTrajectory, tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    save_trajectory(trajectory, path)
    loaded = load_trajectory(path)
    times = np.linspace(0, 1.5, 50)
    latent = EditedLatent(trajectory.w_plus_0 + 0.2, trajectory.w_plus_0, ("age",), FAMILY)
    for options in ({}, {"latent": latent}, {"faithful": 0.0}, {"method": "parallel"}):
        assert torch.equal(
            solve_at_times(loaded, times, **options).w_plus, solve_at_times(trajectory, times, **options).w_plus
        )
    assert loaded.fps == trajectory.fps and loaded.family == trajectory.family
    assert loaded.certificate == json.loads(json.dumps(trajectory.certificate))
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.safetensors"]


def test_saving_replaces_a_file_whole(trajectory: LatentTrajectory, tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    path.write_bytes(b"older")
    save_trajectory(trajectory, path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["trajectory"])
    assert header["format"] == "dynode trajectory" and header["version"] == 2


def test_a_failed_save_leaves_the_old_file_and_no_litter(
    trajectory: LatentTrajectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.safetensors"
    path.write_bytes(b"older")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_trajectory(trajectory, path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("clip.safetensors", b"older")]


def test_other_files_are_refused(trajectory: LatentTrajectory, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trajectory file"):
        load_trajectory(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("not tensors at all")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_trajectory(tmp_path / "text.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no trajectory file"):
        load_trajectory(tmp_path / "other.safetensors")


def test_another_version_and_missing_tensors_are_refused(trajectory: LatentTrajectory, tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    save_trajectory(trajectory, path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["trajectory"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "new.safetensors", {"trajectory": json.dumps({**header, "version": 99})})
    with pytest.raises(ValueError, match="version 99"):
        load_trajectory(tmp_path / "new.safetensors")
    del tensors["subspace.axes"]
    save_file(tensors, tmp_path / "damaged.safetensors", {"trajectory": json.dumps(header)})
    with pytest.raises(ValueError, match="damaged"):
        load_trajectory(tmp_path / "damaged.safetensors")


def test_plot_shows_dots_line_and_dashes(trajectory: LatentTrajectory) -> None:
    plain = plot_trajectory(trajectory)
    assert plain.shape == (600, 1000, 3) and plain.dtype == np.uint8
    latent = EditedLatent(trajectory.w_plus_0 + 0.5, trajectory.w_plus_0, ("age",), FAMILY)
    sample = solve_at_times(trajectory, np.linspace(0, 1.5, 80), latent=latent)
    with_edit = plot_trajectory(trajectory, sample)

    def reddish(image: np.ndarray) -> int:
        return int(((image[..., 0] > 180) & (image[..., 1] < 120)).sum())

    assert reddish(plain) == 0 and reddish(with_edit) > 300
    for picture in (plain, with_edit):
        border = np.concatenate(
            [picture[:3].reshape(-1, 3), picture[-3:].reshape(-1, 3), picture[:, :3].reshape(-1, 3)]
        )
        assert (border == 255).all()  # nothing is cut off at the rim
        assert (picture < 250).any()


def test_plot_of_two_keyframes_has_one_panel() -> None:
    picture = plot_trajectory(fit_trajectory(inverted_clip(smooth_codes(2), np.array([0.0, 0.5]))))
    assert picture.shape == (600, 1000, 3)


def test_files_of_version_1_are_still_read(trajectory: LatentTrajectory, tmp_path: Path) -> None:
    save_trajectory(trajectory, tmp_path / "two.safetensors")
    with safe_open(tmp_path / "two.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["trajectory"])
    header["version"] = 1
    del header["field"]["kind"], header["subspace"]["kind"]
    tensors = load_file(tmp_path / "two.safetensors")
    save_file(tensors, tmp_path / "one.safetensors", {"trajectory": json.dumps(header)})
    loaded = load_trajectory(tmp_path / "one.safetensors")
    times = np.linspace(0, float(trajectory.times[-1]), 7)
    assert torch.equal(solve_at_times(loaded, times).w_plus, solve_at_times(trajectory, times).w_plus)


@pytest.mark.parametrize("options", [{}, {"use_time": False}, {"variant": "released"}], ids=str)
def test_trained_networks_are_saved_and_solve_to_the_same_codes(tmp_path: Path, options: dict) -> None:
    clip = inverted_clip(smooth_codes(5, rows=2, channels=8), np.arange(5) / 25)
    trained = train_trajectory(clip, GradientSettings(steps=2, hidden=8, **options))
    save_trajectory(trained, tmp_path / "net.safetensors")
    loaded = load_trajectory(tmp_path / "net.safetensors")
    assert loaded.certificate == trained.certificate
    times, latent = np.linspace(0, 0.16, 9), EditedLatent(clip.w_plus[0] + 0.1, clip.w_plus[0], ("age",), FAMILY)
    found, expected = (solve_at_times(t, times, latent=latent) for t in (loaded, trained))
    assert torch.equal(found.w_plus, expected.w_plus) and torch.equal(found.base_w_plus, expected.base_w_plus)
