"""Solving at chosen times: edits, the faithful dial, methods, anchors, and the released codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import FAMILY, inverted_clip, jitter, smooth_codes
from safetensors.torch import load_file
from torch import Tensor

from dynode_pack.dynode_core.ode import METHODS, TrajectorySettings, fit_trajectory, solve_at_times
from dynode_pack.dynode_core.ode.path import solve_path
from dynode_pack.dynode_core.types import EditedLatent, LatentTrajectory

COUNT = 150
TIMES = np.arange(COUNT) / 25.0


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.fixture(scope="module")
def codes() -> Tensor:
    noise = 0.1 * jitter(COUNT, 96, correlation=0.3).reshape(COUNT, 4, 24)
    return torch.from_numpy(smooth_codes(COUNT) + noise).float()


@pytest.fixture(scope="module")
def trajectory(codes: Tensor) -> LatentTrajectory:
    return fit_trajectory(inverted_clip(codes, TIMES), TrajectorySettings(check_held_out=False))


def edited(codes: Tensor, change: Tensor, index: int = 0) -> EditedLatent:
    return EditedLatent(codes[index] + change, codes[index], ("smile=2",), FAMILY)


def direction(trajectory: LatentTrajectory, *, inside: bool) -> Tensor:
    """A strong edit within the hull of the codes, or one that leaves it."""
    generator = torch.Generator().manual_seed(4)
    if inside:
        return trajectory.subspace.decode_change(0.3 * torch.randn(1, trajectory.subspace.rank, generator=generator))[0]
    return 0.3 * torch.randn(4, 24, generator=generator)


def test_observed_codes_are_passed_exactly(trajectory: LatentTrajectory, codes: Tensor) -> None:
    sample = solve_at_times(trajectory, TIMES)
    assert relative(sample.w_plus, codes) < 1e-5
    assert sample.w_plus is sample.base_w_plus
    assert sample.status == "success" and sample.nfe > 0


def test_the_dial_goes_from_exact_to_smooth_in_proportion(trajectory: LatentTrajectory, codes: Tensor) -> None:
    errors = {f: relative(solve_at_times(trajectory, TIMES, faithful=f).w_plus, codes) for f in (0.0, 0.5, 1.0)}
    assert errors[0.5] == pytest.approx(errors[0.0] / 2, rel=1e-3)
    accelerations = [
        float(solve_at_times(trajectory, TIMES, faithful=f).w_plus.diff(n=2, dim=0).norm()) for f in (0.0, 0.5, 1.0)
    ]
    assert accelerations[0] < 0.5 * accelerations[1] < 0.5 * accelerations[2]
    clean = torch.from_numpy(smooth_codes(COUNT))
    assert relative(solve_at_times(trajectory, TIMES, faithful=0.0).w_plus, clean) < 0.6 * relative(codes, clean)


@pytest.mark.parametrize("inside", [True, False], ids=["in-hull", "out-of-hull"])
@pytest.mark.parametrize("faithful", [0.0, 1.0])
def test_an_edit_of_the_first_code_is_carried_exactly(
    trajectory: LatentTrajectory, codes: Tensor, inside: bool, faithful: float
) -> None:
    change = direction(trajectory, inside=inside)
    sample = solve_at_times(trajectory, TIMES, latent=edited(codes, change), faithful=faithful)
    carried = (sample.w_plus - sample.base_w_plus).flatten(1)
    assert float(torch.cosine_similarity(carried, change.flatten()[None]).min()) >= 0.999
    ratio = carried.norm(dim=1) / change.norm()
    assert float(ratio.min()) >= 0.98 and float(ratio.max()) <= 1.02
    assert sample.edits == ("smile=2",)


def test_the_first_output_is_the_edited_code(trajectory: LatentTrajectory, codes: Tensor) -> None:
    change = direction(trajectory, inside=False)
    sample = solve_at_times(trajectory, TIMES[:1], latent=edited(codes, change))
    assert torch.allclose(sample.w_plus[0], codes[0] + change, atol=1e-5)


def test_an_edit_of_strength_zero_changes_nothing(trajectory: LatentTrajectory, codes: Tensor) -> None:
    plain = solve_at_times(trajectory, TIMES)
    sample = solve_at_times(trajectory, TIMES, latent=edited(codes, torch.zeros(4, 24)))
    assert torch.equal(sample.w_plus, plain.w_plus) and torch.equal(sample.w_plus, sample.base_w_plus)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_same_codes(trajectory: LatentTrajectory, codes: Tensor, method: str) -> None:
    if method == "adaptive_heun":
        pytest.skip("of order 2: minutes at this tolerance; test_ode_solvers covers it")
    times = np.linspace(0, TIMES[-1], 9)
    rtol = 1e-3 if method in ("bosh3", "fehlberg2") else 1e-5
    reference = solve_at_times(trajectory, times, faithful=0.0, method="dopri5", rtol=1e-7, atol=1e-8)
    sample = solve_at_times(
        trajectory,
        times,
        latent=edited(codes, direction(trajectory, inside=True)),
        faithful=0.0,
        method=method,
        rtol=rtol,
    )
    assert relative(sample.base_w_plus, reference.w_plus) < (5e-2 if method == "euler" else 2e-3)


def test_window_parallel_and_one_window_after_another_agree(trajectory: LatentTrajectory) -> None:
    field = trajectory.vector_field
    y0 = torch.cat([field.starts[:1], field.starts[:1] + 0.4])
    tau = np.linspace(0, 1, 301)
    options = {"rtol": 1e-7, "atol": 1e-8}
    at_once, in_turn = (solve_path(field, y0, tau, method=m, **options) for m in ("dopri5", "dopri5 in turn"))
    assert torch.allclose(at_once.y, in_turn.y, atol=2e-5)
    assert at_once.sweeps >= 1 and in_turn.sweeps == 0
    assert at_once.nfe < in_turn.nfe


def test_thousands_of_keyframes_are_solved_window_parallel() -> None:
    count = 4000
    codes = smooth_codes(count, rows=2, channels=8, axes=4) + 0.02 * jitter(count, 16, correlation=0.2).reshape(
        -1, 2, 8
    )
    times = np.arange(count) / 25.0
    trajectory = fit_trajectory(inverted_clip(codes, times), TrajectorySettings(check_held_out=False))
    assert trajectory.certificate["passed"], trajectory.certificate
    field = trajectory.vector_field
    solution = solve_path(field, field.starts[:1] + 0.2, np.linspace(0, 1, 50))
    assert 1 <= solution.sweeps <= 2
    assert torch.allclose(
        solution.y, solve_path(field, field.starts[:1] + 0.2, np.linspace(0, 1, 50), method="parallel").y, atol=5e-3
    )


def test_a_field_that_depends_on_the_state_falls_back_and_stays_right(codes: Tensor) -> None:
    loose = fit_trajectory(
        inverted_clip(codes, TIMES), TrajectorySettings(state_dependence=1.0, check_held_out=False)
    ).vector_field
    y0 = torch.cat([loose.starts[:1], loose.starts[:1] + 0.5])
    tau = np.linspace(0, 1, 31)
    exact = solve_path(loose, y0, tau, method="torchdiffeq dopri5", rtol=1e-7, atol=1e-8)
    for method in ("dopri5", "parallel", "dopri5 in turn"):
        assert torch.allclose(solve_path(loose, y0, tau, method=method).y.double(), exact.y.double(), atol=5e-3)


def test_state_dependence_bends_an_edit_that_otherwise_is_carried(codes: Tensor) -> None:
    def carried(amount: float) -> float:
        settings = TrajectorySettings(state_dependence=amount, check_held_out=False)
        trajectory = fit_trajectory(inverted_clip(codes, TIMES), settings)
        change = direction(trajectory, inside=True)
        sample = solve_at_times(trajectory, TIMES, latent=edited(codes, change))
        difference = (sample.w_plus - sample.base_w_plus).flatten(1)
        return float(torch.cosine_similarity(difference, change.flatten()[None]).min())

    assert carried(0.0) > 0.9999
    assert carried(1.0) < carried(0.5) + 1e-6 and carried(1.0) < 0.9999


@pytest.mark.parametrize("method", ["dopri5", "parallel", "rk4"])
def test_an_edit_anchored_in_the_middle_reaches_both_ends(
    trajectory: LatentTrajectory, codes: Tensor, method: str
) -> None:
    change = direction(trajectory, inside=True)
    sample = solve_at_times(
        trajectory, TIMES, latent=edited(codes, change, index=70), anchor_s=float(TIMES[70]), method=method
    )
    assert torch.allclose(sample.w_plus[70], codes[70] + change, atol=1e-3)
    carried = (sample.w_plus - sample.base_w_plus).flatten(1)
    assert float(torch.cosine_similarity(carried, change.flatten()[None]).min()) >= 0.999
    assert relative(sample.base_w_plus, codes) < 1e-5


def test_forward_then_backward_returns_the_state(trajectory: LatentTrajectory) -> None:
    field = trajectory.vector_field
    y0 = field.starts[:1] + 0.3
    options = {"rtol": 1e-8, "atol": 1e-9}
    end = solve_path(field, y0, np.array([1.0]), **options).y[:, 0]
    back = solve_path(field, end, np.array([0.0, 0.5]), anchor=1.0, **options)
    assert torch.allclose(back.y[:, 0], y0, atol=1e-5)


def test_times_may_come_in_any_order(trajectory: LatentTrajectory) -> None:
    times = np.array([2.0, 0.5, 0.5, 5.0, 0.0])
    shuffled = solve_at_times(trajectory, times).w_plus
    alone = solve_at_times(trajectory, np.unique(times)).w_plus
    assert torch.allclose(shuffled, alone[np.searchsorted(np.unique(times), times)], atol=1e-5)


def test_codes_at_a_time_do_not_depend_on_the_other_times(trajectory: LatentTrajectory) -> None:
    few, many = np.linspace(0, 5, 6), np.linspace(0, 5, 501)
    assert torch.allclose(
        solve_at_times(trajectory, few).w_plus, solve_at_times(trajectory, many).w_plus[::100], atol=1e-5
    )
    assert solve_at_times(trajectory, few).nfe == solve_at_times(trajectory, many).nfe


def test_times_outside_the_clip_are_held_with_a_warning(trajectory: LatentTrajectory, codes: Tensor) -> None:
    with pytest.warns(UserWarning, match="2 of 3 times lie outside the clip"):
        sample = solve_at_times(trajectory, np.array([-1.0, 0.0, 99.0]))
    assert torch.allclose(sample.w_plus[0], sample.w_plus[1])
    assert torch.allclose(sample.w_plus[2], codes[-1], atol=1e-4)
    assert sample.times.tolist() == [0.0, 0.0, TIMES[-1]]


def test_same_inputs_same_codes_and_nothing_is_mutated(trajectory: LatentTrajectory, codes: Tensor) -> None:
    latent = edited(codes, direction(trajectory, inside=False))
    before = [latent.w_plus_0.clone(), trajectory.w_plus.clone(), trajectory.vector_field.heads.clone()]
    first, second = (solve_at_times(trajectory, TIMES, latent=latent) for _ in range(2))
    assert torch.equal(first.w_plus, second.w_plus)
    assert torch.equal(latent.w_plus_0, before[0]) and torch.equal(trajectory.w_plus, before[1])
    assert torch.equal(trajectory.vector_field.heads, before[2])
    assert trajectory.vector_field.heads.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faithful": 1.5}, "faithful should be between 0"),
        ({"method": "dopri99"}, "method should be one of"),
        ({"times": np.array([])}, "at least one time"),
        ({"times": np.array([0.0, np.nan])}, "NaN or infinite"),
    ],
)
def test_bad_requests_are_refused(trajectory: LatentTrajectory, options: dict, message: str) -> None:
    options = dict(options)
    with pytest.raises(ValueError, match=message):
        solve_at_times(trajectory, options.pop("times", TIMES), **options)


def test_an_edit_of_another_size_or_family_is_refused(trajectory: LatentTrajectory, codes: Tensor) -> None:
    other = EditedLatent(torch.zeros(6, 24), torch.zeros(6, 24), (), FAMILY)
    with pytest.raises(ValueError, match=r"edited latent should have shape \(4, 24\)"):
        solve_at_times(trajectory, TIMES, latent=other)
    foreign = dataclasses.replace(edited(codes, torch.ones(4, 24)), family="another")
    with pytest.raises(ValueError, match="family 'another'"):
        solve_at_times(trajectory, TIMES, latent=foreign)


def test_a_field_that_cannot_be_followed_says_what_to_do(trajectory: LatentTrajectory) -> None:
    import copy

    field = copy.deepcopy(trajectory.vector_field)
    field.heads[1] = float("nan")
    broken = dataclasses.replace(trajectory, vector_field=field)
    for method in ("dopri5", "parallel", "torchdiffeq dopri5"):
        with pytest.raises(RuntimeError, match="status"):
            solve_at_times(broken, TIMES, method=method)


@pytest.fixture(scope="module")
def released(shared: Path) -> tuple[Tensor, np.ndarray]:
    tensors = load_file(shared / "assets" / "latents" / "dynode_released_w_plus.safetensors")
    return tensors["w_plus"].float(), tensors["frame_index"].numpy() / 30.0


def test_released_codes_are_fitted_exactly_and_predicted_like_linear_or_better(
    released: tuple[Tensor, np.ndarray],
) -> None:
    codes, times = released
    trajectory = fit_trajectory(inverted_clip(codes, times, fps=30))
    certificate = trajectory.certificate
    assert relative(solve_at_times(trajectory, times).w_plus, codes) <= 1e-4
    assert certificate["passed"] and certificate["drift"] <= 1e-3
    assert certificate["held_out_rel"] <= 1.01 * certificate["held_out_linear_rel"]
    assert certificate["held_out_linear_rel"] == pytest.approx(0.0815, abs=1e-3)


@pytest.mark.parametrize(("name", "strength"), [("smile", 4.0), ("age", 5.0), ("yaw", 2.0)])
def test_real_directions_are_carried_over_released_codes(
    released: tuple[Tensor, np.ndarray], shared: Path, name: str, strength: float
) -> None:
    codes, times = released
    trajectory = fit_trajectory(inverted_clip(codes, times, fps=30), TrajectorySettings(check_held_out=False))
    change = torch.from_numpy(np.load(shared / "assets" / "directions" / f"ffhq_w_{name}.npy")).float() * strength
    sample = solve_at_times(trajectory, np.linspace(0, times[-1], 41), latent=edited(codes, change))
    carried = (sample.w_plus - sample.base_w_plus).flatten(1)
    assert float(torch.cosine_similarity(carried, change.flatten()[None]).min()) >= 0.999
    assert float((carried.norm(dim=1) / change.norm() - 1).abs().max()) <= 0.02
