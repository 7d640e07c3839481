"""Options of Solve At Times: several latents, later edits, variation, extrapolation, streaming."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from problems import FAMILY, inverted_clip, jitter, smooth_codes
from torch import Tensor

from dynode_pack.dynode_core.ode import (
    GradientSettings,
    LaterEdit,
    TrajectorySettings,
    Variation,
    fit_trajectory,
    solve_at_times,
    solve_batch_at_times,
    train_trajectory,
)
from dynode_pack.dynode_core.ode.driven import ControlPath, DrivenField
from dynode_pack.dynode_core.ode.path import solve_path
from dynode_pack.dynode_core.ode.variation import noise_path
from dynode_pack.dynode_core.ode.vector_field import WindowedField
from dynode_pack.dynode_core.tuned_weights import Tuning
from dynode_pack.dynode_core.types import EditedLatent, LatentTrajectory

COUNT = 80
TIMES = np.arange(COUNT) / 25.0
END = float(TIMES[-1])


@pytest.fixture(scope="module")
def codes() -> Tensor:
    noise = 0.05 * jitter(COUNT, 96, correlation=0.3).reshape(COUNT, 4, 24)
    return torch.from_numpy(smooth_codes(COUNT) + noise).float()


@pytest.fixture(scope="module")
def trajectory(codes: Tensor) -> LatentTrajectory:
    return fit_trajectory(inverted_clip(codes, TIMES), TrajectorySettings(check_held_out=False))


def latent(codes: Tensor, seed: int, size: float = 0.3, name: str = "smile=2") -> EditedLatent:
    change = size * torch.randn(4, 24, generator=torch.Generator().manual_seed(seed))
    return EditedLatent(codes[0] + change, codes[0], (name,), FAMILY)


def test_several_latents_in_one_batch_are_what_each_is_alone(trajectory: LatentTrajectory, codes: Tensor) -> None:
    first, second = latent(codes, 1), latent(codes, 2, name="age=1")
    together = solve_batch_at_times(trajectory, TIMES, [first, None, second])
    alone = [solve_at_times(trajectory, TIMES, latent=one) for one in (first, None, second)]
    for batched, single in zip(together, alone, strict=True):
        assert torch.allclose(batched.w_plus, single.w_plus, atol=1e-4)
        assert batched.edits == single.edits
        assert batched.base_w_plus is together[0].base_w_plus
    assert together[1].w_plus is together[1].base_w_plus
    assert together[0].nfe < sum(sample.nfe for sample in alone)
    with pytest.raises(ValueError, match="at least one latent"):
        solve_batch_at_times(trajectory, TIMES, [])


def test_tuned_weights_travel_into_every_sample(trajectory: LatentTrajectory, codes: Tensor) -> None:
    tuned = dataclasses.replace(trajectory, tuning=Tuning({"a": torch.ones(1)}))
    for sample in solve_batch_at_times(tuned, TIMES[:3], [None, latent(codes, 1)], stream=True):
        assert sample.tuning is tuned.tuning


@pytest.mark.parametrize("options", [{}, {"faithful": 0.3}, {"extrapolate_s": 0.2}], ids=str)
def test_streamed_codes_are_the_codes(trajectory: LatentTrajectory, codes: Tensor, options: dict) -> None:
    times = np.linspace(0, END + (0.5 if "extrapolate_s" in options else 0), 301)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        held = solve_at_times(trajectory, times, latent=latent(codes, 1), **options)
        streamed = solve_at_times(trajectory, times, latent=latent(codes, 1), stream=True, **options)
    assert tuple(streamed.w_plus.shape) == (301, 4, 24) and len(streamed.w_plus) == 301
    assert not isinstance(streamed.w_plus, Tensor)
    for part in (slice(None), slice(7, 9), slice(250, 301), 5, -1, torch.tensor([3, 200])):
        assert torch.allclose(streamed.w_plus[part], held.w_plus[part], atol=1e-6)
        assert torch.allclose(streamed.base_w_plus[part], held.base_w_plus[part], atol=1e-6)


def test_later_times_are_held_unless_extrapolation_is_asked_for(trajectory: LatentTrajectory) -> None:
    times = np.array([END, END + 0.1, END + 50.0])
    with pytest.warns(UserWarning, match="show its first or last frame"):
        held = solve_at_times(trajectory, times)
    assert torch.equal(held.w_plus[0], held.w_plus[2])
    with pytest.warns(UserWarning, match="extrapolated.*guess"):
        carried = solve_at_times(trajectory, times, extrapolate_s=0.2)
    assert carried.times.tolist() == times.tolist()
    assert not torch.allclose(carried.w_plus[0], carried.w_plus[1], atol=1e-3)


@pytest.mark.parametrize("end", [0.0, END], ids=["before", "after"])
def test_extrapolation_goes_on_smoothly_and_dies_away(trajectory: LatentTrajectory, codes: Tensor, end: float) -> None:
    step, damping, sign = 1e-3, 0.25, 1 if end else -1
    times = end + sign * np.array([-step, 0.0, step, damping, 40 * damping, 41 * damping])
    with pytest.warns(UserWarning, match="extrapolated"):
        sample = solve_at_times(
            trajectory, times, faithful=0.0, extrapolate_s=damping, latent=latent(codes, 3), rtol=1e-7, atol=1e-8
        )
    path = sample.w_plus.double()
    inside, outside = path[1] - path[0], path[2] - path[1]
    assert float((outside - inside).norm() / inside.norm()) < 0.05
    velocity = outside / step
    assert torch.allclose(path[4], path[5], atol=1e-5)
    assert float((path[4] - path[1]).norm() / (velocity * damping).norm()) == pytest.approx(1.0, rel=0.05)
    assert float((path[3] - path[1]).norm() / (path[4] - path[1]).norm()) == pytest.approx(1 - np.exp(-1), rel=0.01)


def test_times_inside_do_not_change_with_extrapolation(trajectory: LatentTrajectory) -> None:
    plain = solve_at_times(trajectory, TIMES)
    assert torch.allclose(solve_at_times(trajectory, TIMES, extrapolate_s=1.0).w_plus, plain.w_plus, atol=1e-6)
    with pytest.raises(ValueError, match="extrapolate_s should be"):
        solve_at_times(trajectory, TIMES, extrapolate_s=-1.0)


def test_a_control_path_passes_its_knots_with_its_slopes_and_rests_outside() -> None:
    rng = np.random.default_rng(0)
    knots = torch.tensor([0.1, 0.3, 0.8], dtype=torch.float64)
    values, slopes = (torch.from_numpy(rng.standard_normal((3, 2))) for _ in range(2))
    path = ControlPath(knots, values, slopes)
    assert torch.allclose(path.position(knots), values)
    assert torch.allclose(path.position(torch.tensor([0.0, 1.0]).double()), values[[0, 2]])
    h = 1e-7
    for index, side in ((0, 1), (1, -1), (1, 1), (2, -1)):
        near = path.position(knots[index : index + 1] + side * h)[0]
        assert torch.allclose((near - values[index]) / (side * h), slopes[index], atol=1e-5)


@pytest.fixture(scope="module")
def driven(trajectory: LatentTrajectory) -> tuple[DrivenField, Tensor]:
    """A field with a strong control, and its exact path at 41 times."""
    field, rank = trajectory.vector_field, trajectory.subspace.rank
    values = torch.stack([torch.zeros(rank), torch.ones(rank), -torch.ones(rank)]).double()
    driven = DrivenField(field, [ControlPath(torch.tensor([0.0, 0.35, 0.9]), values)])
    return driven, _driven_by_its_derivative(field, driven)


@pytest.mark.parametrize("method", ["dopri5", "parallel", "dopri5 in turn", "rk4"])
def test_every_solver_follows_a_driven_field(driven: tuple[DrivenField, Tensor], method: str) -> None:
    field, exact = driven
    tau = np.linspace(0, 1, 41)
    u = solve_path(field, field.starts[:1], tau, method=method, rtol=1e-6, atol=1e-7).y
    y = u + field.control_at(torch.from_numpy(tau)).to(u)
    assert torch.allclose(y.double(), exact, atol=2e-4)


def _driven_by_its_derivative(field: WindowedField, driven: DrivenField) -> Tensor:
    """dy/dtau = f + X' as it stands, by Runge-Kutta steps of order 4 that never cross a knot or a window."""
    h, y, states = 1 / 1200, field.starts[:1].clone(), []

    def slope(at: float, y: Tensor, side: float) -> Tensor:
        near = torch.tensor([at + side * 1e-9, at + side * 1e-9 + side * 1e-6]).double().clamp(0, 1)
        push = driven.control_at(near).diff(dim=0) / near.diff()[:, None]
        return field(torch.tensor(at).double(), y) + push

    for step in range(1200):
        if step % 30 == 0:
            states.append(y)
        at = step * h
        k1 = slope(at, y, 1.0)
        k2 = slope(at + h / 2, y + h / 2 * k1, 1.0)
        k3 = slope(at + h / 2, y + h / 2 * k2, 1.0)
        k4 = slope(at + h, y + h * k3, -1.0)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return torch.stack([*states, y], dim=1)


def test_an_edit_leads_to_what_it_becomes_later(trajectory: LatentTrajectory, codes: Tensor) -> None:
    first, middle, last = latent(codes, 1), latent(codes, 2, name="age=1"), latent(codes, 3, name="yaw=1")
    later = [LaterEdit(last, float(TIMES[60])), LaterEdit(middle, float(TIMES[30]))]
    sample = solve_at_times(trajectory, TIMES, latent=first, later=later)
    carried = sample.w_plus - sample.base_w_plus
    for index, edit in ((0, first), (30, middle), (60, last), (79, last)):
        wanted = edit.w_plus_0 - edit.base_w_plus_0
        assert float((carried[index] - wanted).norm() / wanted.norm()) < 5e-3
    assert float(carried.diff(dim=0).flatten(1).norm(dim=1).max()) < 0.3  # it glides: an edit has the norm 3
    assert sample.edits == ("smile=2", "yaw=1 at 2.4 s", "age=1 at 1.2 s")
    assert torch.allclose(sample.base_w_plus, codes, atol=1e-3)


def test_a_later_edit_alone_fades_in_and_one_at_the_start_is_refused(
    trajectory: LatentTrajectory, codes: Tensor
) -> None:
    edit = latent(codes, 2)
    sample = solve_at_times(trajectory, TIMES, later=[LaterEdit(edit, END)])
    assert torch.allclose(sample.w_plus[0], codes[0], atol=1e-3)
    assert torch.allclose(sample.w_plus[-1] - sample.base_w_plus[-1], edit.w_plus_0 - codes[0], atol=1e-2)
    with pytest.raises(ValueError, match="same time"):
        solve_at_times(trajectory, TIMES, latent=edit, later=[LaterEdit(edit, 0.0)])


def test_noise_has_unit_variance_and_the_length_that_was_asked_for() -> None:
    times, values, velocities = noise_path(400.0, 64, Variation(1.0, length_s=0.5, seed=3))
    settled = values[20:]
    assert float(settled.std()) == pytest.approx(1.0, rel=0.03)
    assert float(velocities[20:].std()) == pytest.approx(np.sqrt(3) / 0.5, rel=0.03)
    lag = round(0.5 / (times[1] - times[0]))
    correlation = float((settled[lag:] * settled[:-lag]).mean())
    assert correlation == pytest.approx((1 + np.sqrt(3)) * np.exp(-np.sqrt(3)), abs=0.03)  # Matern-3/2 at one length
    assert not values[0].any() and not velocities[0].any()


def test_variation_has_its_amplitude_its_seed_and_leaves_the_base_alone(
    trajectory: LatentTrajectory, codes: Tensor
) -> None:
    plain = solve_at_times(trajectory, TIMES)
    one, again, other = (
        solve_at_times(trajectory, TIMES, variation=Variation(0.2, 0.1, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one.w_plus, again.w_plus) and not torch.allclose(one.w_plus, other.w_plus, atol=1e-2)
    assert torch.allclose(one.base_w_plus, plain.w_plus, atol=1e-5)
    assert torch.allclose(one.w_plus[0], codes[0], atol=1e-3)
    noise = (one.w_plus - one.base_w_plus)[10:].flatten(1).norm(dim=1).square().mean().sqrt()
    spread = (trajectory.subspace.spread * trajectory.subspace.scale).norm()
    assert float(noise / spread) == pytest.approx(0.2, rel=0.25)
    none = solve_at_times(trajectory, TIMES, variation=Variation(0.0))
    assert none.w_plus is none.base_w_plus


def test_variation_at_a_time_does_not_depend_on_the_other_times(trajectory: LatentTrajectory) -> None:
    few, many = np.linspace(0, END, 5), np.linspace(0, END, 201)
    options = {"variation": Variation(0.3, 0.3, seed=5)}
    sparse, dense = (solve_at_times(trajectory, times, **options).w_plus for times in (few, many))
    assert torch.allclose(sparse, dense[::50], atol=1e-4)


def test_variation_and_later_edits_work_on_trained_networks(codes: Tensor) -> None:
    trained = train_trajectory(inverted_clip(codes[:9], TIMES[:9]), GradientSettings(steps=2, hidden=8))
    sample = solve_at_times(
        trained, TIMES[:9], variation=Variation(0.1, 0.1), later=[LaterEdit(latent(codes, 1), float(TIMES[8]))]
    )
    assert not torch.allclose(sample.w_plus[5:], sample.base_w_plus[5:], atol=1e-3)


def test_out_of_range_options_are_refused(trajectory: LatentTrajectory) -> None:
    with pytest.raises(ValueError, match="amplitude of the variation"):
        Variation(-1.0)
    with pytest.raises(ValueError, match="length of the variation"):
        Variation(1.0, length_s=0.0)
    with pytest.raises(TypeError, match="faithfull"):
        solve_at_times(trajectory, TIMES, faithfull=1.0)
