"""The path solvers at their limits: order of the parallel one, stiff fields, ten thousand keyframes, missing times."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import inverted_clip, jitter, smooth_codes
from torch import Tensor

from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times
from dynode_pack.dynode_core.ode import picard as picard_module
from dynode_pack.dynode_core.ode.path import OWN_METHODS, solve_path
from dynode_pack.dynode_core.ode.solution import Status
from dynode_pack.dynode_core.ode.vector_field import PathField
from dynode_pack.dynode_core.ode.windows import plan_leg


class PlainField(PathField):
    """A field over [0, 1] in two windows, from a formula."""

    def __init__(self, formula, y0: Tensor) -> None:  # noqa: ANN001
        super().__init__()
        self.formula = formula
        self.register_buffer("edges", torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
        self.register_buffer("starts", y0.expand(2, -1).clone())
        self.register_buffer("ends", y0.expand(2, -1).clone())

    def in_windows(self, windows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        low, high = self.edges[windows][:, None], self.edges[windows + 1][:, None]
        tau = low + (x.double() + 1) / 2 * (high - low)
        return self.formula(tau[..., None].to(y), y) * ((high - low) / 2)[..., None].to(y)


def wave() -> PlainField:
    """dy/dtau = 3 cos(3 tau) - 0.2 (y - sin(3 tau)), so y = sin(3 tau)."""
    return PlainField(
        lambda t, y: 3 * torch.cos(3 * t) - 0.2 * (y - torch.sin(3 * t)), torch.zeros(1, dtype=torch.float64)
    )


def test_error_of_gauss_collocation_shrinks_at_order_six(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picard_module, "DEFECT", 1e-14)
    monkeypatch.setattr(picard_module, "MAX_ITERATIONS", 60)
    field, errors = wave(), []
    leg, y0 = plan_leg(field, 0.0, forward=True), torch.zeros(1, 1, dtype=torch.float64)
    for steps in (2, 4):
        found = picard_module._iterate(field, leg, y0, torch.zeros_like(y0), steps)
        assert found is not None
        at_end = found.nodes[-1, -1] + torch.einsum(
            "j,jbr->br", torch.as_tensor(picard_module.GAUSS_WEIGHTS), found.slopes[-1, -1]
        )
        errors.append(abs(float(at_end) - math.sin(3.0)))
    assert 5.5 < math.log2(errors[0] / errors[1]) < 7.0


@pytest.mark.parametrize("method", OWN_METHODS)
def test_path_solvers_meet_the_exact_answer(method: str) -> None:
    tau = np.linspace(0, 1, 33)
    solution = solve_path(wave(), torch.zeros(1, 1), tau, method=method, rtol=1e-8, atol=1e-9)
    assert solution.status is Status.SUCCESS and solution.nfe > 0
    assert np.abs(solution.y[0, :, 0].numpy() - np.sin(3 * tau)).max() < 2e-7


@pytest.mark.parametrize("method", OWN_METHODS)
def test_a_stiff_field_ends_with_a_status_that_says_so(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynode_pack.dynode_core.ode import windows

    monkeypatch.setattr(windows, "MAX_STEPS", 60)
    stiff = PlainField(lambda t, y: -1e6 * (y - torch.cos(t)), torch.zeros(1, dtype=torch.float64))
    solution = solve_path(stiff, torch.zeros(1, 1), np.linspace(0, 1, 5), method=method)
    assert solution.status is Status.MAX_STEPS
    with pytest.raises(RuntimeError, match="too stiff"):
        solution.raise_for_status(method)


@pytest.mark.parametrize("method", OWN_METHODS)
def test_a_field_that_blows_up_ends_with_a_status(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynode_pack.dynode_core.ode import windows

    monkeypatch.setattr(windows, "MAX_STEPS", 200)
    explosive = PlainField(lambda t, y: y * y * 8, torch.ones(1, dtype=torch.float64))
    solution = solve_path(explosive, torch.ones(1, 1), np.linspace(0, 1, 5), method=method)
    assert solution.status is not Status.SUCCESS and solution.nfe > 0


def test_ten_thousand_keyframes_are_fitted_and_solved() -> None:
    count = 10_000
    codes = smooth_codes(count, rows=2, channels=6, axes=4) + 0.02 * jitter(count, 12, correlation=0.2).reshape(
        -1, 2, 6
    )
    times = np.arange(count) / 25.0
    trajectory = fit_trajectory(inverted_clip(codes, times), TrajectorySettings(check_held_out=False))
    assert trajectory.certificate["passed"], trajectory.certificate
    sample = solve_at_times(trajectory, times[::7], method="parallel")
    assert float((sample.w_plus - trajectory.w_plus[::7]).abs().max()) < 1e-3


def test_keyframes_that_are_missing_leave_the_others_exact() -> None:
    """Uneven times, as after faces that were not found."""
    rng = np.random.default_rng(1)
    kept = np.sort(rng.choice(200, 90, replace=False))
    codes, times = torch.from_numpy(smooth_codes(200)).float(), np.arange(200) / 25.0
    clip = inverted_clip(codes[torch.from_numpy(kept)], times[kept], frame_times=times)
    trajectory = fit_trajectory(clip, TrajectorySettings(check_held_out=False))
    assert trajectory.certificate["passed"], trajectory.certificate
    sample = solve_at_times(trajectory, times[kept])
    assert torch.allclose(sample.w_plus, clip.w_plus, atol=1e-4)
    left = np.setdiff1d(np.arange(kept[0], kept[-1]), kept)
    between = solve_at_times(trajectory, times[left]).w_plus
    assert float((between - codes[torch.from_numpy(left)]).norm() / codes[torch.from_numpy(left)].norm()) < 0.05
