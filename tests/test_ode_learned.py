"""The path that is learned from the clip: taken where motion repeats, left alone where it does not."""

from __future__ import annotations

import functools
import importlib

import numpy as np
import pytest
import torch
from problems import inverted_clip

from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times
from dynode_pack.dynode_core.ode.learned import Effort
from dynode_pack.dynode_core.ode.reference import LEARNED, Reference, fit_reference

SHORT = Effort(300, 200)


def rounds(turns: int, per_turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and `(K, 3)` states of a closed curve that is gone round at a constant pace."""
    tau = np.arange(0, turns, 1 / per_turn)
    angle = 2 * np.pi * tau
    return tau / tau[-1], np.stack([np.cos(angle), np.sin(angle), 0.5 * np.cos(2 * angle)], axis=1)


def plain(times: np.ndarray, states: np.ndarray) -> Reference:
    return fit_reference(times, states).reference


def test_motion_that_repeats_is_learned_and_passes_the_keyframes() -> None:
    times, states = rounds(6, 5.3)
    fit = fit_reference(times, states, kind=LEARNED, effort=SHORT)
    assert fit.kind == LEARNED and fit.cross_validated is not None
    assert fit.cross_validated[0] < 0.95 * fit.cross_validated[1]
    assert np.abs(fit.reference.position(times) - plain(times, states).position(times)).max() < 1e-5


def test_motion_that_never_comes_back_keeps_the_plain_path() -> None:
    times = np.linspace(0, 1, 24)
    states = np.stack([times, times**2, np.sin(2 * times)], axis=1)
    fit = fit_reference(times, states, kind=LEARNED, effort=Effort(20, 20))
    assert fit.kind == fit_reference(times, states).kind
    assert fit.cross_validated is not None and fit.cross_validated[0] > fit.cross_validated[1]


def test_few_keyframes_are_not_learned_from() -> None:
    times, states = rounds(1, 10)
    fit = fit_reference(times, states, kind=LEARNED)
    assert fit.kind == fit_reference(times, states).kind and fit.cross_validated is None


def test_a_learned_path_is_distilled_certified_and_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    times, states = rounds(6, 5.3)
    codes = torch.from_numpy(np.pad(states, ((0, 0), (0, 5)))).float().reshape(len(times), 2, 4)
    clip = inverted_clip(codes.numpy(), times * 6)
    settings = TrajectorySettings(reference=LEARNED, check_held_out=False)
    calls = 0

    def cancel(done: int, total: int, preview: object = None) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_trajectory(clip, settings, progress=cancel)
    assert calls == 5
    module = importlib.import_module("dynode_pack.dynode_core.ode.trajectory")
    monkeypatch.setattr(module, "Effort", functools.partial(Effort, 300, 200))
    trajectory = fit_trajectory(clip, settings)
    assert trajectory.certificate["reference"] == LEARNED and trajectory.certificate["passed"]
    assert trajectory.certificate["cross_validated_learned"] < trajectory.certificate["cross_validated_plain"]
    torch.testing.assert_close(solve_at_times(trajectory, clip.times).w_plus[:], clip.w_plus, rtol=0, atol=1e-4)
