"""Fields trained by gradients on clips with changes of shot: each shot is a solution from its own first code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import FAMILY, inverted_clip, smooth_codes

from dynode_pack.dynode_core.ode import (
    GradientSettings,
    TrajectorySettings,
    fit_trajectory,
    load_trajectory,
    save_trajectory,
    solve_at_times,
    train_trajectory,
)
from dynode_pack.dynode_core.ode.devices import solving_device
from dynode_pack.dynode_core.ode.driven import ControlPath, DrivenField
from dynode_pack.dynode_core.ode.networks import CodeNetwork, NetworkField
from dynode_pack.dynode_core.ode.shots import Shots
from dynode_pack.dynode_core.types import EditedLatent, InvertedClip, LatentTrajectory

CUT = 10.6 / 25
SETTINGS = GradientSettings(steps=40, hidden=16, evaluate_every=10)


@pytest.fixture(scope="module")
def clip() -> InvertedClip:
    """Two shots, far apart in the space of codes; the second has the keyframes 11 to 19."""
    codes = smooth_codes(20, rows=2, channels=8, axes=3)
    codes[11:] += 30 * np.random.default_rng(1).standard_normal((1, 2, 8))
    return dataclasses.replace(inverted_clip(codes, np.arange(20) / 25), cuts_s=np.array([CUT]))


@pytest.fixture(scope="module")
def trajectory(clip: InvertedClip) -> LatentTrajectory:
    return train_trajectory(clip, SETTINGS)


def test_windows_cover_the_clip_and_rest_between_keyframes_and_cuts() -> None:
    shots = Shots.of(np.array([0.0, 0.2, 0.5, 0.6, 1.0]), (0.3, 0.55))
    assert shots.edges.tolist() == [0.0, 0.2, 0.3, 0.5, 0.55, 0.6, 1.0]
    assert shots.moving.tolist() == [True, False, False, False, False, True]
    assert shots.shot.tolist() == [0, 0, 1, 1, 2, 2]
    assert [(run.start, run.stop) for run in shots.trainable] == [(0, 2), (3, 5)]
    assert Shots.of(np.array([0.0, 0.4, 1.0]), ()).edges.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("method", ["dopri5", "parallel", "dopri5 in turn", "torchdiffeq dopri5", "rk4"])
def test_each_shot_starts_at_its_own_first_code_and_the_path_jumps_at_the_cut(
    clip: InvertedClip, trajectory: LatentTrajectory, method: str
) -> None:
    assert trajectory.certificate["cuts_s"] == pytest.approx([CUT]) and trajectory.certificate["warnings"] == []
    around = np.array([10 / 25, CUT - 1e-3, CUT + 1e-3, 11 / 25])
    codes = solve_at_times(trajectory, around, faithful=0.0, method=method, rtol=1e-5).w_plus[:]
    assert torch.allclose(codes[2], codes[3], atol=1e-5)
    assert torch.allclose(codes[0], codes[1], atol=1e-5)
    assert float((codes[3] - clip.w_plus[11]).norm()) < 0.02
    assert float((codes[2] - codes[1]).norm()) > 50


def test_shots_are_followed_far_more_closely_than_by_one_curve_across_them(
    clip: InvertedClip, trajectory: LatentTrajectory
) -> None:
    straight = train_trajectory(clip, dataclasses.replace(SETTINGS, cuts="none"))
    assert trajectory.certificate["observed_rel"] < 0.1 * straight.certificate["observed_rel"]
    losses = trajectory.certificate["losses"]
    assert min(losses) < 0.9 * losses[0]


def test_an_edit_goes_on_across_the_cut(clip: InvertedClip, trajectory: LatentTrajectory) -> None:
    change = 1e-3 * torch.randn(2, 8, generator=torch.Generator().manual_seed(2))
    latent = EditedLatent(clip.w_plus[0] + change, clip.w_plus[0], ("a",), FAMILY)
    sample = solve_at_times(trajectory, np.array([CUT - 1e-3, CUT + 1e-3]), latent=latent, rtol=1e-7)
    before, after = sample.w_plus[:] - sample.base_w_plus[:]
    assert float(before.norm()) > 1e-4 and torch.allclose(before, after, atol=3e-6)


def test_an_edit_put_into_the_second_shot_reaches_the_first(clip: InvertedClip, trajectory: LatentTrajectory) -> None:
    latent = EditedLatent(clip.w_plus[15] + 0.5, clip.w_plus[15], ("a",), FAMILY)
    sample = solve_at_times(trajectory, clip.times[[15, 3]], latent=latent, anchor_s=float(clip.times[15]))
    change = sample.w_plus[:] - sample.base_w_plus[:]
    assert torch.allclose(change[0], torch.full((2, 8), 0.5), atol=1e-3) and float(change[1].norm()) > 0.5


def test_shots_survive_a_file_and_a_run_that_was_stopped(
    clip: InvertedClip, trajectory: LatentTrajectory, tmp_path: Path
) -> None:
    save_trajectory(trajectory, tmp_path / "a.safetensors")
    times = np.linspace(0, 19 / 25, 40)
    loaded = load_trajectory(tmp_path / "a.safetensors")
    assert torch.equal(solve_at_times(loaded, times).w_plus[:], solve_at_times(trajectory, times).w_plus[:])

    class Stop(Exception):
        pass

    def stop(done: int, total: int, preview: object = None) -> None:
        if done == 17:
            raise Stop

    with pytest.raises(Stop):
        train_trajectory(clip, SETTINGS, cache_dir=tmp_path, progress=stop)
    resumed = train_trajectory(clip, SETTINGS, cache_dir=tmp_path)
    assert resumed.certificate == {**trajectory.certificate, "resumed_at": 17}
    moved = dataclasses.replace(clip, cuts_s=np.array([9.5 / 25]))
    assert train_trajectory(moved, SETTINGS, cache_dir=tmp_path).certificate["resumed_at"] == 0


def test_shots_of_one_keyframe_stand_still() -> None:
    codes = smooth_codes(2, rows=2, channels=8, axes=2)
    clip = dataclasses.replace(inverted_clip(codes, np.array([0.0, 1.0])), cuts_s=np.array([0.5]))
    trajectory = train_trajectory(clip, GradientSettings(steps=5, hidden=8))
    held = solve_at_times(trajectory, np.array([0.2, 0.49, 0.5, 0.8]), faithful=0.0).w_plus[:]
    assert torch.allclose(held, clip.w_plus[[0, 0, 1, 1]], atol=1e-5)


def test_times_outside_the_clip_are_no_cuts(clip: InvertedClip) -> None:
    trajectory = train_trajectory(clip, GradientSettings(steps=1, hidden=8, cuts=(-1.0, CUT, 30.0)))
    assert trajectory.certificate["cuts_s"] == pytest.approx([CUT])


def test_weights_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="one of them above 0"):
        GradientSettings(latent_weight=0.0)


def test_all_parts_of_a_field_lie_on_one_device() -> None:
    field = NetworkField(CodeNetwork(4, hidden=8), torch.zeros(1, 4), torch.zeros(1, 4), 1.0).to("meta")
    again = NetworkField(field.network, field.starts, field.ends, 1.0)
    assert {value.device.type for value in again.state_dict().values()} == {"meta"}
    control = ControlPath(torch.tensor([0.0, 1.0]), torch.zeros(2, 4))
    driven = DrivenField(again, [control])
    assert {value.device.type for value in driven.state_dict().values()} == {"meta"}


def test_a_device_without_float64_leaves_the_solving_to_the_cpu() -> None:
    assert solving_device("cpu").type == "cpu" and solving_device("mps").type == "cpu"
    clip = inverted_clip(smooth_codes(8), np.arange(8) / 25)
    trajectory = fit_trajectory(clip, TrajectorySettings(device="mps", check_held_out=False))
    assert trajectory.vector_field.edges.dtype == torch.float64
    assert torch.allclose(solve_at_times(trajectory, clip.times).w_plus[:], clip.w_plus, atol=1e-4)
