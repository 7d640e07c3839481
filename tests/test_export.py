"""How the times of a sample become the times and the sound of a file."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dynode_pack.dynode_core.export import plan_playback

NTSC = Fraction(30000, 1001)


def test_own_frames_play_at_their_own_speed() -> None:
    plan = plan_playback(np.arange(100) / float(NTSC), NTSC)
    assert (plan.speed, plan.frame_times, plan.in_sync) == (1.0, None, True)


def test_slow_motion_slows_the_sound_by_the_same_factor() -> None:
    plan = plan_playback(np.arange(397) / (4 * 25.0), Fraction(25))
    assert plan.speed == pytest.approx(0.25)
    assert plan.frame_times is None
    assert plan.in_sync


def test_more_frames_in_the_same_time_leave_the_sound_alone() -> None:
    assert plan_playback(np.arange(200) / 50.0, Fraction(50)).speed == 1.0


def test_uneven_frame_times_are_kept_exactly() -> None:
    times = np.cumsum([0.5, 0.03, 0.05, 0.03, 0.05, 0.03, 0.05])
    plan = plan_playback(times, Fraction(25))
    assert plan.speed == 1.0
    assert plan.frame_times is not None
    np.testing.assert_allclose(plan.frame_times, times - 0.5)


def test_sound_that_cannot_follow_is_left_out() -> None:
    assert not plan_playback(np.array([0.0, 0.1, 1.5, 1.6, 4.0]), Fraction(25)).in_sync
    assert not plan_playback(np.array([0.0, 0.0, 0.0]), Fraction(25)).in_sync


def test_one_frame_plays_at_its_own_speed() -> None:
    assert plan_playback(np.array([1.25]), Fraction(25)).speed == 1.0
