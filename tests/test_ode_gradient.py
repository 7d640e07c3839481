"""Fields trained by gradients, and the authors' released field against its own numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import FAMILY, inverted_clip, smooth_codes
from safetensors.torch import load_file
from torch import Tensor

from dynode_pack.dynode_core.ode import (
    GradientSettings,
    TrajectorySettings,
    fit_trajectory,
    plot_trajectory,
    solve_at_times,
    train_trajectory,
)
from dynode_pack.dynode_core.ode.networks import ReleasedField
from dynode_pack.dynode_core.ode.solve import solve
from dynode_pack.dynode_core.types import EditedLatent, InvertedClip

Golden = dict[str, Tensor]


@pytest.fixture(scope="module")
def released(request: pytest.FixtureRequest) -> tuple[Golden, ReleasedField]:
    find: Callable[[str], Path] = request.getfixturevalue("golden")
    numbers = load_file(find("dynode_odefunc_dopri5.safetensors"))
    field = ReleasedField(18, 32)
    field.load_state_dict(
        {name.removeprefix("weights."): v for name, v in numbers.items() if name.startswith("weights.")}
    )
    return numbers, field


def test_training_told_to_move_across_changes_of_shot_warns_of_it() -> None:
    clip = inverted_clip(smooth_codes(8, rows=2, channels=8, axes=3), np.arange(8) / 25)
    settings = GradientSettings(steps=1, hidden=8, cuts="none")
    assert train_trajectory(clip, settings).certificate["warnings"] == []
    outside = dataclasses.replace(clip, cuts_s=np.array([2.0]))
    assert train_trajectory(outside, settings).certificate["warnings"] == []
    cut = dataclasses.replace(clip, cuts_s=np.array([3.5 / 25, 2.0]))
    (warning,) = train_trajectory(cut, settings).certificate["warnings"]
    assert "(at 0.14 s)" in warning and "auto" in warning
    assert train_trajectory(cut, dataclasses.replace(settings, cuts="auto")).certificate["warnings"] == []


def test_released_field_has_its_value(released: tuple[Golden, ReleasedField]) -> None:
    numbers, field = released
    value = field(torch.zeros(1), numbers["in.z0"].reshape(1, -1))
    assert torch.allclose(value.view(1, 18, 32), numbers["out.f_of_z0"], atol=1e-6)


@pytest.mark.parametrize("case", ["regular", "irregular", "start3", "backward", "dense32"])
@pytest.mark.parametrize("method", ["dopri5", "torchdiffeq dopri5"])
def test_released_field_solves_to_its_codes(released: tuple[Golden, ReleasedField], case: str, method: str) -> None:
    numbers, field = released
    with torch.no_grad():
        solution = solve(
            field.double(),
            numbers["in.z0"].double().reshape(1, -1),
            numbers[f"in.t.{case}"].double(),
            method=method,
            rtol=1e-7,
            atol=1e-9,
        )
    expected = numbers[f"out.z.{case}"].reshape(1, -1, 18 * 32).double()
    assert solution.y.shape == expected.shape
    assert float((solution.y - expected).abs().max()) < 1e-4


def test_released_field_has_its_loss_and_gradients(released: tuple[Golden, ReleasedField]) -> None:
    numbers, field = released
    field = field.double()
    z0 = numbers["in.z0"].double().reshape(1, -1).requires_grad_()
    solution = solve(field, z0, numbers["in.t.irregular"].double(), rtol=1e-7, atol=1e-9)
    loss = (solution.y[0].view(-1, 1, 18, 32) - numbers["in.target"]).square().mean()
    field.zero_grad()
    loss.backward()
    assert loss.item() == pytest.approx(float(numbers["out.loss"]), rel=1e-4)
    assert z0.grad is not None
    # Leaky ReLU has kinks: torchdiffeq itself repeats these gradients to 0.2 % and 0.6 % at this tolerance.
    assert distance(z0.grad.view(1, 18, 32), numbers["out.grad.z0"]) < 0.004
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None
        assert distance(parameter.grad, numbers[f"out.grad.{name}"]) < 0.01


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_spiral_has_its_exact_answer(released: tuple[Golden, ReleasedField]) -> None:
    numbers, _ = released
    matrix = numbers["spiral.A"].double()
    solution = solve(lambda t, y: y**3 @ matrix, numbers["spiral.y0"].double(), numbers["spiral.t"].double(), rtol=1e-8)
    linear = solve(lambda t, y: y @ matrix, numbers["spiral.y0"].double(), numbers["spiral.t"].double(), rtol=1e-8)
    expected = numbers["spiral.exact"][:, 0]
    errors = [float((found.y[0] - expected).abs().max()) for found in (solution, linear)]
    assert min(errors) < 1e-5


@pytest.fixture(scope="module")
def clip() -> InvertedClip:
    return inverted_clip(smooth_codes(9, rows=2, channels=8, axes=3), np.arange(9) / 25)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_time": False},
        {"solver": "torchdiffeq dopri5"},
        {"solver": "torchdiffeq dopri5", "adjoint": True},
        {"variant": "released"},
    ],
    ids=str,
)
def test_training_lowers_the_loss(clip: InvertedClip, options: dict) -> None:
    steps = 12 if options.get("adjoint") else 40
    settings = GradientSettings(steps=steps, hidden=32, learning_rate=0.003, evaluate_every=4, **options)
    trajectory = train_trajectory(clip, settings)
    losses = trajectory.certificate["losses"]
    assert min(losses) < 0.9 * losses[0]
    assert torch.allclose(solve_at_times(trajectory, clip.times).w_plus, clip.w_plus, atol=1e-4)


def test_longer_training_follows_the_codes_and_carries_the_edit_along(clip: InvertedClip) -> None:
    trajectory = train_trajectory(clip, GradientSettings(steps=150, hidden=48, learning_rate=0.01, evaluate_every=25))
    assert trajectory.certificate["observed_rel"] < 0.1
    latent = EditedLatent(clip.w_plus[0] + 0.1, clip.w_plus[0], ("age",), FAMILY)
    sample = solve_at_times(trajectory, clip.times, latent=latent, faithful=0.0)
    assert torch.allclose(sample.w_plus[0], clip.w_plus[0] + 0.1, atol=1e-4)
    assert plot_trajectory(trajectory, sample).shape == (600, 1000, 3)


def test_the_best_state_is_what_comes_back_and_seeds_repeat(clip: InvertedClip) -> None:
    settings = GradientSettings(steps=30, hidden=16, learning_rate=0.05, evaluate_every=5)
    first, second = train_trajectory(clip, settings), train_trajectory(clip, settings)
    assert first.certificate == second.certificate
    losses = first.certificate["losses"]
    assert first.certificate["best_step"] == 5 * int(np.argmin(losses))


def test_training_stops_early_when_nothing_improves(clip: InvertedClip) -> None:
    seen = []
    settings = GradientSettings(steps=200, hidden=16, learning_rate=1e-9, evaluate_every=2, patience=3)
    train_trajectory(clip, settings, progress=lambda done, total, preview=None: seen.append(done))
    assert seen[-1] < 20


def test_a_picture_loss_takes_part(clip: InvertedClip) -> None:
    calls = []

    def brightness(solved: Tensor, observed: Tensor, times: np.ndarray) -> Tensor:
        calls.append(tuple(solved.shape))
        for code, time in zip(observed, times, strict=True):
            torch.testing.assert_close(code, clip.w_plus[int(np.flatnonzero(clip.times == time)[0])])
        return (solved.mean() - observed.mean()).square()

    train_trajectory(clip, GradientSettings(steps=3, hidden=8, picture_weight=1.0, batch=4), picture_loss=brightness)
    assert calls[1] == (4, 2, 8)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="adjoint method needs the solver"):
        GradientSettings(adjoint=True)
    with pytest.raises(ValueError, match="variant should be one of"):
        GradientSettings(variant="best")


def test_looks_show_the_path_and_the_losses(clip: InvertedClip) -> None:
    pictures = []
    settings = GradientSettings(steps=6, hidden=8, evaluate_every=3)
    train_trajectory(clip, settings, progress=lambda done, total, preview=None: pictures.append(preview))
    assert [picture is not None for picture in pictures] == [False, False, True] * 2
    assert pictures[2].shape == (480, 640, 3) and pictures[2].dtype == np.uint8
    assert not np.array_equal(pictures[2], pictures[5])


class _Stop(Exception):
    pass


def _stop_after(steps: int) -> Callable[..., None]:
    def progress(done: int, total: int, preview: np.ndarray | None = None) -> None:
        if done == steps:
            raise _Stop

    return progress


@pytest.mark.parametrize("stop", [4, 7, 10])
def test_a_resumed_run_ends_as_if_it_had_not_stopped(clip: InvertedClip, tmp_path: Path, stop: int) -> None:
    settings = GradientSettings(steps=12, hidden=8, evaluate_every=5)
    whole = train_trajectory(clip, settings)
    with pytest.raises(_Stop):
        train_trajectory(clip, settings, cache_dir=tmp_path, progress=_stop_after(stop))
    seen: list[int] = []
    resumed = train_trajectory(
        clip, settings, cache_dir=tmp_path, progress=lambda done, total, preview=None: seen.append(done)
    )
    assert seen == list(range(stop + 1, 13))
    assert resumed.certificate == {**whole.certificate, "resumed_at": stop}
    for name, value in whole.vector_field.state_dict().items():
        assert torch.equal(resumed.vector_field.state_dict()[name], value), name


def test_a_finished_run_is_not_trained_again_and_more_steps_go_on(clip: InvertedClip, tmp_path: Path) -> None:
    short, long = (GradientSettings(steps=steps, hidden=8, evaluate_every=4) for steps in (8, 10))
    first = train_trajectory(clip, short, cache_dir=tmp_path)
    again = train_trajectory(clip, short, cache_dir=tmp_path)
    assert again.certificate == {**first.certificate, "resumed_at": 8}
    longer = train_trajectory(clip, long, cache_dir=tmp_path)
    assert longer.certificate["losses"] == train_trajectory(clip, long).certificate["losses"]


def test_other_codes_settings_or_damage_start_anew(clip: InvertedClip, tmp_path: Path) -> None:
    settings = GradientSettings(steps=3, hidden=8)
    train_trajectory(clip, settings, cache_dir=tmp_path)
    for other in (
        dataclasses.replace(settings, seed=1),
        dataclasses.replace(settings, learning_rate=0.02),
    ):
        assert train_trajectory(clip, other, cache_dir=tmp_path).certificate["resumed_at"] == 0
    moved = dataclasses.replace(clip, w_plus=clip.w_plus + 1e-3)
    assert train_trajectory(moved, settings, cache_dir=tmp_path).certificate["resumed_at"] == 0
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-50])
    assert train_trajectory(clip, settings, cache_dir=tmp_path).certificate["resumed_at"] == 0


def test_a_nameless_picture_loss_is_not_kept(clip: InvertedClip, tmp_path: Path) -> None:
    settings = GradientSettings(steps=2, hidden=8, picture_weight=1.0)
    loss = lambda solved, observed, times: (solved - observed).abs().mean()  # noqa: E731
    train_trajectory(clip, settings, picture_loss=loss, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    train_trajectory(clip, settings, picture_loss=loss, picture_loss_id="l1", cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_closed_form_is_closer_than_training(clip: InvertedClip) -> None:
    closed = fit_trajectory(clip, TrajectorySettings(check_held_out=False, reference="natural cubic"))
    trained = train_trajectory(clip, GradientSettings(steps=60, hidden=32, evaluate_every=20))
    assert closed.certificate["observed_rel"] < 1e-3 < trained.certificate["observed_rel"]
