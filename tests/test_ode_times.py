"""Choosing output times."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from problems import inverted_clip, smooth_codes

from dynode_pack.dynode_core.ode import (
    FpsTimes,
    RemapTimes,
    TrajectorySettings,
    fit_trajectory,
    output_times,
    parse_times,
)
from dynode_pack.dynode_core.types import LatentTrajectory

FPS = Fraction(30000, 1001)


def trajectory_over(frame_times: np.ndarray, fps: Fraction = FPS) -> LatentTrajectory:
    clip = inverted_clip(smooth_codes(3), frame_times[[0, len(frame_times) // 2, -1]], frame_times=frame_times, fps=fps)
    return fit_trajectory(clip, TrajectorySettings(check_held_out=False))


@pytest.fixture(scope="module")
def regular() -> LatentTrajectory:
    return trajectory_over(np.arange(31) / float(FPS))


@pytest.fixture(scope="module")
def varying() -> LatentTrajectory:
    return trajectory_over(np.array([0.0, 0.03, 0.1, 0.14, 0.3]), Fraction(15))


def test_same_times_are_the_frame_times(varying: LatentTrajectory) -> None:
    times, fps = output_times(varying, "same")
    assert np.array_equal(times, varying.frame_times) and fps == 15
    times[0] = 9.0
    assert varying.frame_times[0] == 0.0


def test_a_factor_splits_every_frame_gap_and_ends_on_the_last_frame(regular: LatentTrajectory) -> None:
    times, fps = output_times(regular, "x4")
    assert len(times) == 4 * 30 + 1
    assert np.allclose(times[::4], regular.frame_times)
    assert np.allclose(np.diff(times), 1 / float(FPS) / 4)
    assert fps == FPS * 4


def test_a_factor_follows_varying_frame_times(varying: LatentTrajectory) -> None:
    times, _ = output_times(varying, "x2")
    assert np.allclose(times, [0, 0.015, 0.03, 0.065, 0.1, 0.12, 0.14, 0.22, 0.3])


@pytest.mark.parametrize("asked", ["29.97 fps", "30000/1001 fps"])
def test_the_rate_of_a_broadcast_clip_meets_its_frames(asked: str) -> None:
    frame_times = np.arange(601) / float(FPS)
    times, fps = parse_times(asked).times(frame_times, FPS)
    assert fps == FPS and len(times) == 601
    assert np.abs(times - frame_times).max() < 1e-9  # blending takes 1e-6 s for the same frame


def test_slow_motion_keeps_the_rate_of_the_source(regular: LatentTrajectory) -> None:
    assert output_times(regular, "x4", playback="slow motion")[1] == FPS
    assert output_times(regular, "60 fps", playback="slow motion")[1] == FPS


def test_a_fraction_thins_frames_out(regular: LatentTrajectory) -> None:
    times, fps = output_times(regular, "x0.5")
    assert np.allclose(times, regular.frame_times[::2]) and fps == FPS / 2


def test_a_count_spans_the_clip_and_keeps_its_speed(regular: LatentTrajectory) -> None:
    times, fps = output_times(regular, "121 frames")
    assert len(times) == 121 and times[0] == 0 and times[-1] == pytest.approx(regular.frame_times[-1])
    assert fps == FPS * 4
    assert len(output_times(regular, "1 frame")[0]) == 1


@pytest.mark.parametrize(("spec", "fps"), [("60 fps", Fraction(60)), ("60000/1001 fps", Fraction(60000, 1001))])
def test_a_rate_samples_the_clip_at_it(regular: LatentTrajectory, spec: str, fps: Fraction) -> None:
    times, rate = output_times(regular, spec)
    assert rate == fps
    assert np.allclose(np.diff(times), 1 / float(fps))
    assert regular.frame_times[-1] - 1 / float(fps) < times[-1] <= regular.frame_times[-1]


def test_the_rate_of_the_source_gives_its_frames(regular: LatentTrajectory) -> None:
    times, _ = output_times(regular, FpsTimes(FPS))
    assert np.allclose(times, regular.frame_times)


@pytest.mark.parametrize("spec", ["0, 0.1, 0.25", "0 0.1 0.25", "0s; 0.1s; 0.25s"])
def test_a_list_is_taken_as_it_is(regular: LatentTrajectory, spec: str) -> None:
    times, fps = output_times(regular, spec)
    assert times.tolist() == [0.0, 0.1, 0.25] and fps == FPS


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("0, 0.2, 0.2", "should increase.*entry 1 is 0.2 s and entry 2 is 0.2 s"),
        ("0.3, 0.1", "should increase"),
        ("fast", "should read like 'same', 'x4'"),
        ("x0", "factor should be larger than 0"),
        ("0 fps", "rate should be above 0"),
        ("60/0 fps", "divides by 0"),
        ("0 frames", "should be 1 to 1000000"),
        ("99999999 frames", "should be 1 to 1000000"),
        ("x99999999", "should be 1 to 1000000"),
        ("0, nan", "NaN or infinite"),
    ],
)
def test_unusable_choices_are_refused(regular: LatentTrajectory, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        output_times(regular, spec)


def test_unknown_playback_is_refused(regular: LatentTrajectory) -> None:
    with pytest.raises(ValueError, match="playback should be one of same speed, slow motion"):
        output_times(regular, "x4", playback="backwards")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ping-pong", RemapTimes("ping-pong")),
        ("ease in x2", RemapTimes("ease in", Fraction(2))),
        ("ease in and out", RemapTimes("ease in and out")),
        ("loop x1 3 times", RemapTimes("loop", repeats=3)),
        ("reverse x1.5", RemapTimes("reverse", Fraction(3, 2))),
    ],
)
def test_curves_are_read(spec: str, expected: RemapTimes) -> None:
    assert parse_times(spec) == expected
