"""Time-remap curves."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from problems import inverted_clip, smooth_codes

from dynode_pack.dynode_core.ode import CURVES, RemapTimes, fit_trajectory, output_times, solve_at_times

FRAMES = np.arange(11) / 25.0


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_stays_in_the_clip_and_touches_both_ends(curve: str) -> None:
    times, fps = RemapTimes(curve, Fraction(4), repeats=2).times(FRAMES, Fraction(25))
    assert times.min() == 0 and times.max() == pytest.approx(FRAMES[-1])
    assert fps == 100


@pytest.mark.parametrize("curve", ["ease in", "ease out", "ease in and out", "ramp"])
def test_curves_that_bend_keep_the_order(curve: str) -> None:
    for strength in (0.0, 0.5, 1.0):
        times, _ = RemapTimes(curve, Fraction(3), strength=strength).times(FRAMES, Fraction(25))
        assert len(times) == 31 and (np.diff(times) > 0).all()
        if strength == 0.0:
            assert np.allclose(np.diff(times), 1 / 75)


def test_eases_start_and_end_slowly() -> None:
    speed = lambda curve: np.diff(RemapTimes(curve, Fraction(8)).times(FRAMES, Fraction(25))[0])  # noqa: E731
    assert speed("ease in")[0] < 0.1 * speed("ease in")[-1]
    assert speed("ease out")[-1] < 0.1 * speed("ease out")[0]
    both = speed("ease in and out")
    assert both[0] < 0.1 * both[40] and np.allclose(both, both[::-1])


def test_a_ramp_ends_at_its_speed() -> None:
    steps = np.diff(RemapTimes("ramp", Fraction(50), ramp_speed=4.0).times(FRAMES, Fraction(25))[0])
    assert steps[-1] / steps[0] == pytest.approx(4.0, rel=0.02)


def test_reverse_loop_and_ping_pong() -> None:
    once = FRAMES
    assert np.allclose(RemapTimes("reverse").times(once, Fraction(25))[0], once[::-1])
    assert np.allclose(RemapTimes("loop", repeats=3).times(once, Fraction(25))[0], np.tile(once, 3))
    back, _ = RemapTimes("ping-pong", repeats=2).times(once, Fraction(25))
    assert len(back) == 41 and np.allclose(back, np.concatenate([once[:-1], once[:0:-1], once[:-1], once[::-1]]))


def test_a_reversed_clip_shows_the_same_codes_backwards() -> None:
    trajectory = fit_trajectory(inverted_clip(smooth_codes(11), FRAMES))
    forward = solve_at_times(trajectory, output_times(trajectory, "same")[0]).w_plus
    backward = solve_at_times(trajectory, output_times(trajectory, RemapTimes("reverse"))[0]).w_plus
    assert torch.allclose(backward.flip(0), forward, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curve": "zigzag"}, "curve should be one of"),
        ({"strength": 2.0}, "strength should be between 0 and 1"),
        ({"repeats": 0}, "repeats should be between"),
        ({"factor": Fraction(0)}, "factor should be larger than 0"),
        ({"ramp_speed": 0.0}, "ramp_speed should be between"),
    ],
)
def test_impossible_curves_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RemapTimes(**options)
