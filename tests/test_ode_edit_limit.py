"""How far an edit is carried where the clip goes the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import FAMILY, inverted_clip, smooth_codes
from torch import Tensor

from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times
from dynode_pack.dynode_core.ode.edit_limit import EditLimit
from dynode_pack.dynode_core.types import EditedLatent, LatentTrajectory

SHARES = torch.linspace(-2, 3, 101)
"""How far the clip has gone along the edit, in units of the edit."""
EDIT, ACROSS = torch.eye(2)[:, :, None].expand(2, 2, 3).clone()
"""`(L, D)` = (2, 3), at right angles."""


def totals(reach: float, furthest: float) -> Tensor:
    """Where base and edit together lie along the edit, for each of SHARES."""
    limit = EditLimit(reach, torch.zeros(2, 3), torch.stack([torch.zeros(2, 3), furthest * EDIT]))
    base = SHARES[:, None, None] * EDIT + 5 * ACROSS
    added = limit.applied(base, EDIT.expand(len(base), 2, 3))
    assert torch.equal(added[:, 1], torch.zeros(len(base), 3))
    return SHARES + added[:, 0, 0]


@pytest.mark.parametrize("furthest", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("reach", [1.0, 1.2, 2.0])
def test_the_sum_stops_at_the_limit_and_never_turns_back(reach: float, furthest: float) -> None:
    total, ceiling = totals(reach, furthest), reach * max(1.0, furthest)
    inside = ceiling >= SHARES
    assert bool((total[inside] <= ceiling + 1e-5).all())
    assert torch.allclose(total[~inside], SHARES[~inside])
    assert bool((total.diff() >= -1e-5).all())
    full = ceiling - 1.25 >= SHARES
    assert full.any() and torch.equal(total[full], SHARES[full] + 1)


def test_what_moves_otherwise_gets_the_whole_edit() -> None:
    limit = EditLimit(1.2, torch.ones(2, 3), torch.ones(1, 2, 3))
    base = 1 + torch.linspace(-9, 9, 7)[:, None, None] * ACROSS
    change = 0.3 * EDIT.expand(7, 2, 3)
    assert torch.equal(limit.applied(base, change), change)
    assert torch.equal(limit.applied(base, torch.zeros(7, 2, 3)), torch.zeros(7, 2, 3))


@pytest.fixture(scope="module")
def trajectory() -> LatentTrajectory:
    codes = torch.from_numpy(smooth_codes(40)).float()
    return fit_trajectory(inverted_clip(codes, np.arange(40) / 25.0), TrajectorySettings(check_held_out=False))


def test_solving_limits_an_edit_that_the_clip_makes_itself(trajectory: LatentTrajectory) -> None:
    times, codes = trajectory.times, trajectory.w_plus
    motion = codes - codes[0]
    furthest = int(motion.flatten(1).norm(dim=1).argmax())
    latent = EditedLatent(codes[furthest], codes[0], ("its own motion=1",), FAMILY)
    free = solve_at_times(trajectory, times, latent=latent)
    held = solve_at_times(trajectory, times, latent=latent, edit_limit=1.2)
    streamed = solve_at_times(trajectory, times, latent=latent, edit_limit=1.2, stream=True)
    along = motion[furthest].flatten() / motion[furthest].square().sum()
    assert float((free.w_plus[furthest] - codes[0]).flatten() @ along) == pytest.approx(2.0, abs=0.05)
    assert float((held.w_plus[furthest] - codes[0]).flatten() @ along) == pytest.approx(1.2, abs=0.05)
    assert torch.allclose(held.w_plus[0], free.w_plus[0], atol=1e-6)
    assert torch.allclose(streamed.w_plus[:], held.w_plus, atol=1e-6)
    assert torch.equal(held.base_w_plus, free.base_w_plus)


@pytest.mark.parametrize("limit", [-1.0, 0.5, float("nan")])
def test_a_limit_that_makes_no_sense_is_refused(trajectory: LatentTrajectory, limit: float) -> None:
    with pytest.raises(ValueError, match="edit_limit should be 0"):
        solve_at_times(trajectory, trajectory.times, edit_limit=limit)
