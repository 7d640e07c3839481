"""The closed-form fit: subspace, choice of smoothing, references, certificate, held-out error, cuts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from problems import inverted_clip, jitter, smooth_codes

from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times
from dynode_pack.dynode_core.ode.closed_form import Segment, fit_field
from dynode_pack.dynode_core.ode.cuts import cuts_of_clip, find_cuts, split_at_cuts
from dynode_pack.dynode_core.ode.gaussian_process import GaussianProcessReference, likely_process
from dynode_pack.dynode_core.ode.jitter import choose_smoothing, estimate_jitter
from dynode_pack.dynode_core.ode.path import solve_path
from dynode_pack.dynode_core.ode.reference import fit_reference
from dynode_pack.dynode_core.ode.spline import SplineAlgebra, SplineReference
from dynode_pack.dynode_core.ode.subspace import fit_subspace


def relative(a: np.ndarray | torch.Tensor, b: np.ndarray | torch.Tensor) -> float:
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("count", [5, 40, 300])
def test_subspace_returns_codes_that_lie_in_it(count: int) -> None:
    codes = torch.from_numpy(smooth_codes(count)).float()
    subspace = fit_subspace(codes)
    assert relative(subspace.decode(subspace.encode(codes)), codes) < 1e-5
    gram = subspace.axes.T @ subspace.axes
    assert torch.allclose(gram, torch.eye(subspace.rank), atol=1e-4)
    assert abs(float(subspace.encode(codes).square().mean()) - 1) < 1e-3


def test_exact_and_randomised_axes_agree() -> None:
    from dynode_pack.dynode_core.ode import subspace

    flat = torch.from_numpy(smooth_codes(200)).reshape(200, -1)
    flat = flat - flat.mean(0)
    exact, energies = subspace._exact_axes(flat, 6)
    found, found_energies = subspace._randomised_axes(flat, 6, 0)
    assert torch.allclose(energies, found_energies, rtol=1e-4)
    overlap = torch.linalg.svdvals(exact.T @ found)
    assert float(overlap.min()) > 0.9999


def test_an_edit_splits_into_a_state_and_what_lies_outside() -> None:
    codes = torch.from_numpy(smooth_codes(12)).float()
    subspace = fit_subspace(codes)
    change = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(0))
    rebuilt = subspace.decode_change(subspace.encode_change(change)) + subspace.outside(change[0])
    assert torch.allclose(rebuilt, change, atol=1e-5)
    assert float(subspace.encode_change(subspace.outside(change[0])[None]).abs().max()) < 1e-6


def test_banded_smoothing_equals_the_dense_formula() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.2, 2.0, 14))
    algebra = SplineAlgebra.of(times)
    q = algebra.spread_jumps(np.eye(12))
    r = np.zeros((12, 12))
    gaps = np.diff(times)
    for j in range(12):
        r[j, j] = (gaps[j] + gaps[j + 1]) / 3
        if j:
            r[j, j - 1] = r[j - 1, j] = gaps[j] / 6
    values = rng.standard_normal((14, 3))
    dense = np.linalg.solve(np.eye(14) + 0.7 * q @ np.linalg.solve(r, q.T), values)
    assert np.allclose(algebra.smooth(values, 0.7), dense, atol=1e-10)
    assert np.allclose(algebra.slope_jumps(values), q.T @ values)


def test_smoothing_leaves_straight_lines_alone() -> None:
    times = np.array([0.0, 0.3, 1.0, 1.1, 4.0, 5.0])
    line = np.stack([2 * times + 1, -times], axis=1)
    assert np.allclose(SplineAlgebra.of(times).smooth(line, 1e4), line)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_jitter_is_measured_from_differences(correlation: float) -> None:
    count, entries, axes = 400, 800, 12
    motion = smooth_codes(count, channels=entries // 4, axes=6).reshape(count, -1)
    noisy = motion + 0.05 * jitter(count, entries, correlation=correlation, seed=2)
    found = estimate_jitter(np.arange(count) / 25, noisy[:, :axes], noisy)
    assert found.identified
    assert found.correlation == pytest.approx(correlation, abs=0.08)
    assert math.sqrt(found.variance / axes) == pytest.approx(0.05, rel=0.15)


def test_jitter_is_measured_at_irregular_times() -> None:
    rng = np.random.default_rng(5)
    times = np.sort(rng.choice(np.arange(1500), 500, replace=False)) / 100.0
    motion = np.stack([np.sin(0.9 * times), np.cos(0.7 * times + 1)], axis=1)
    noise = 0.03 * rng.standard_normal(motion.shape)
    found = estimate_jitter(times, motion + noise)
    assert math.sqrt(found.variance / 2) == pytest.approx(0.03, rel=0.15)


@pytest.mark.parametrize(("count", "correlation"), [(60, 0.0), (120, 0.3), (300, 0.6), (400, 0.3)])
def test_chosen_smoothing_is_close_to_the_best_possible(count: int, correlation: float) -> None:
    clean = smooth_codes(count, channels=200).reshape(count, -1)
    noisy = clean + 0.2 * jitter(count, clean.shape[1], correlation=correlation, seed=3)
    samples, clean, noisy = noisy, clean[:, :16], noisy[:, :16]
    times = np.arange(count) / 25.0
    algebra, unit = SplineAlgebra.of(times), (1 / 25.0) ** 3
    lam = choose_smoothing(times, noisy, estimate_jitter(times, noisy, samples))
    reached = np.linalg.norm(algebra.smooth(noisy, lam) - clean)
    oracle = min(np.linalg.norm(algebra.smooth(noisy, g * unit) - clean) for g in np.logspace(-2, 5, 60))
    assert reached < 1.1 * oracle
    assert reached < 0.75 * np.linalg.norm(noisy - clean)


def test_gaussian_process_is_smooth_and_its_velocity_is_its_derivative() -> None:
    times = np.linspace(0, 1, 11)
    values = np.random.default_rng(0).standard_normal((11, 2))
    process = GaussianProcessReference(times, values, length=0.1, nugget=1e-9)
    assert np.allclose(process.position(times), values, atol=1e-6)
    at, step = np.array([0.111, 0.5, 0.93]), 1e-6
    slope = (process.position(at + step) - process.position(at - step)) / (2 * step)
    assert np.allclose(process.velocity(at), slope, atol=1e-4)


def test_banded_gaussian_process_equals_the_dense_one() -> None:
    rng = np.random.default_rng(4)
    times = np.sort(rng.uniform(0, 60, 60))
    values = rng.standard_normal((60, 2))
    distance = np.sqrt(5) * np.abs(times[:, None] - times[None]) / 1.5
    covariance = (1 + distance + distance**2 / 3) * np.exp(-distance) + 0.05 * np.eye(60)
    solved, ones = np.linalg.solve(covariance, values), np.linalg.solve(covariance, np.ones(60))
    trend = ones @ values / ones.sum()
    expected = trend + (covariance - 0.05 * np.eye(60)) @ (solved - ones[:, None] * trend)
    process = GaussianProcessReference(times, values, length=1.5, nugget=0.05)
    assert np.allclose(process.position(times), expected, atol=1e-7)


def test_few_observations_take_the_process_many_the_smoothing_spline() -> None:
    states = smooth_codes(80).reshape(80, -1)[:, :8] + 0.1 * jitter(80, 8, correlation=0.2)
    tau = np.linspace(0, 1, 80)
    assert fit_reference(tau[:20], states[:20]).kind == "gaussian process"
    assert fit_reference(tau, states).kind == "smoothing spline"
    assert fit_reference(tau[:2], states[:2]).kind == "natural cubic"
    assert fit_reference(tau, states, smoothing=0.0).kind == "natural cubic"


def test_sparse_keyframes_that_resolve_the_motion_are_joined_more_closely_than_by_lines_or_splines() -> None:
    codes, times = smooth_codes(41), np.arange(41) / 25
    states, kept = codes.reshape(41, -1), slice(0, None, 4)
    reference = fit_reference(times[kept], states[kept]).reference
    held = np.setdiff1d(np.arange(41), np.arange(41)[kept])
    errors = [
        relative(path.position(times[held]), states[held])
        for path in (reference, SplineReference(times[kept], states[kept]))
    ]
    straight = np.stack([np.interp(times[held], times[kept], column) for column in states[kept].T], axis=1)
    assert errors[0] < errors[1] < relative(straight, states[held])
    assert errors[0] < 0.2 * relative(straight, states[held])


def test_likelihood_finds_the_process_that_made_the_values_and_gives_up_on_noise() -> None:
    rng, times = np.random.default_rng(2), np.arange(25.0)
    d = np.sqrt(5) * np.abs(np.subtract.outer(times, times)) / 4
    factor = np.linalg.cholesky((1 + d + d * d / 3) * np.exp(-d) + 0.01 * np.eye(25))
    assert likely_process(times, 3 + factor @ rng.standard_normal((25, 200)), 1.0) == (4.0, 0.01)
    assert likely_process(times, rng.standard_normal((25, 200)), 1.0) is None
    rough = np.cumsum(rng.standard_normal((25, 200)), axis=0)
    assert likely_process(times, rough + 3 * rng.standard_normal((25, 200)), 1.0) is None


def test_a_long_gap_does_not_pull_the_path_to_the_mean() -> None:
    times = np.concatenate([np.arange(6), np.arange(6) + 20.0])
    states = np.stack([np.full(12, 5.0), np.linspace(-1, 1, 12)], axis=1)
    states[0, 0] = 4.0
    middle = fit_reference(times / 25, states).reference.position(np.array([12.5 / 25]))
    assert abs(middle[0, 0] - 5.0) < 0.3


def _field_along(path: SplineReference, knots: np.ndarray, **options: float) -> torch.nn.Module:
    return fit_field([Segment(0.0, 1.0, knots, path)], 3, **options)


def test_solution_of_the_field_follows_the_reference_path() -> None:
    knots = np.linspace(0, 1, 200)
    values = np.stack([np.sin(9 * knots), np.cos(7 * knots), knots**2], axis=1)
    path = SplineReference(knots, values)
    field = _field_along(path, knots)
    assert len(field.edges) - 1 == 3
    fine = np.linspace(0, 1, 501)
    solution = solve_path(field, torch.from_numpy(values[:1]), fine, rtol=1e-8, atol=1e-9)
    assert np.abs(solution.y[0].numpy() - path.position(fine)).max() < 2e-4


def test_field_is_the_derivative_that_any_package_can_integrate() -> None:
    import torchdiffeq

    knots = np.linspace(0, 1, 40)
    path = SplineReference(knots, np.stack([np.sin(5 * knots), knots, knots**3], axis=1))
    field = _field_along(path, knots)
    y0 = torch.from_numpy(path.position(np.array([0.0])))
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    plain = torchdiffeq.odeint(field, y0, times, rtol=1e-9, atol=1e-10, method="dopri5")[:, 0]
    ours = solve_path(field, y0, times.numpy(), rtol=1e-9, atol=1e-10).y[0]
    assert torch.allclose(plain, ours, atol=1e-6)


def test_weaker_jacobian_rows_let_the_motion_depend_on_the_state() -> None:
    knots = np.linspace(0, 1, 120)
    path = SplineReference(knots, np.stack([np.sin(9 * knots), np.cos(7 * knots), knots], axis=1))
    start = torch.from_numpy(path.position(np.array([0.0])))
    moved = torch.cat([start, start + 0.3])
    change = {}
    for weight in (1e-2, 1e-8):
        states = solve_path(_field_along(path, knots, jacobian_weight=weight), moved, np.array([1.0])).y[:, 0]
        change[weight] = float((states[1] - states[0] - 0.3).norm())
    assert change[1e-2] < 2e-3 < change[1e-8]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 11, 29, 30, 64, 130])
def test_any_number_of_keyframes_is_followed(count: int) -> None:
    codes = smooth_codes(count)
    times = np.arange(count) / 25
    trajectory = fit_trajectory(inverted_clip(codes, times))
    certificate = trajectory.certificate
    assert certificate["passed"], certificate
    assert certificate["drift"] < 1e-3
    assert relative(solve_at_times(trajectory, times).w_plus, codes) < 1e-5
    assert ("held_out_rel" in certificate) == (count >= 5)


def test_two_keyframes_are_joined_by_a_straight_line() -> None:
    codes = smooth_codes(2)
    trajectory = fit_trajectory(inverted_clip(codes, np.array([0.0, 1.0])))
    middle = solve_at_times(trajectory, np.array([0.25])).w_plus[0]
    assert relative(middle, 0.75 * codes[0] + 0.25 * codes[1]) < 1e-4


def test_one_keyframe_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="at least 2 keyframes.*Invert a longer clip"):
        fit_trajectory(inverted_clip(smooth_codes(1), np.array([0.0])))


def test_times_that_do_not_increase_are_refused() -> None:
    with pytest.raises(ValueError, match="should increase.*Sort them"):
        inverted_clip(smooth_codes(4), np.array([0.0, 0.1, 0.1, 0.2]))


def test_identical_codes_stand_still() -> None:
    codes = np.repeat(smooth_codes(1), 6, axis=0)
    trajectory = fit_trajectory(inverted_clip(codes, np.arange(6) / 25))
    assert trajectory.certificate["passed"]
    assert relative(solve_at_times(trajectory, np.linspace(0, 0.2, 21)).w_plus, np.repeat(codes[:1], 21, axis=0)) < 1e-6


def test_irregular_keyframes_are_followed() -> None:
    rng = np.random.default_rng(7)
    frames = np.sort(rng.choice(np.arange(1, 399), 118, replace=False))
    frames = np.concatenate([[0], frames, [399]])
    codes = smooth_codes(400)
    trajectory = fit_trajectory(inverted_clip(codes[frames], frames / 25.0))
    assert trajectory.certificate["passed"], trajectory.certificate
    ours = relative(solve_at_times(trajectory, np.arange(400) / 25.0).w_plus, codes)
    flat = codes.reshape(400, -1)
    straight = np.stack([np.interp(np.arange(400), frames, flat[frames, j]) for j in range(flat.shape[1])], axis=1)
    assert ours < 0.7 * relative(straight, flat)


def test_held_out_codes_are_predicted_better_than_by_straight_lines() -> None:
    count = 161
    codes = smooth_codes(count) + 0.05 * jitter(count, 96, correlation=0.2).reshape(count, 4, 24)
    certificate = fit_trajectory(inverted_clip(codes[::4], np.arange(count)[::4] / 25)).certificate
    assert certificate["held_out_rel"] < certificate["held_out_linear_rel"]


def test_same_seed_gives_the_same_field_and_inputs_stay_unchanged() -> None:
    codes = torch.from_numpy(smooth_codes(40)).float()
    clip = inverted_clip(codes.clone(), np.arange(40) / 25)
    first, second = (fit_trajectory(clip, TrajectorySettings(seed=3)) for _ in range(2))
    for name, value in first.vector_field.state_dict().items():
        assert torch.equal(value, second.vector_field.state_dict()[name])
    assert first.certificate == second.certificate
    assert torch.equal(clip.w_plus, codes)


def test_progress_is_reported_and_may_cancel() -> None:
    class Cancelled(Exception):
        pass

    seen = []

    def cancel(done: int, total: int, preview: np.ndarray | None = None) -> None:
        seen.append((done, total))
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit_trajectory(inverted_clip(smooth_codes(20), np.arange(20) / 25), progress=cancel)
    assert seen == [(1, 4), (2, 4)]


def _two_shots() -> tuple[np.ndarray, np.ndarray]:
    codes = smooth_codes(60)
    codes[34:] += 4 * np.random.default_rng(3).standard_normal((1, 4, 24))
    return codes, np.arange(60) / 25.0


@pytest.mark.parametrize("cuts", ["auto", (33.2 / 25,)])
def test_a_cut_is_a_jump_not_a_fast_motion(cuts: str | tuple[float, ...]) -> None:
    codes, times = _two_shots()
    trajectory = fit_trajectory(inverted_clip(codes, times), TrajectorySettings(cuts=cuts))
    cut = 33.5 / 25 if cuts == "auto" else cuts[0]
    assert trajectory.certificate["cuts_s"] == pytest.approx([cut])
    assert trajectory.certificate["passed"], trajectory.certificate
    for faithful in (0.0, 1.0):
        around = solve_at_times(trajectory, np.array([cut - 1e-3, cut + 1e-3]), faithful=faithful).w_plus
        assert relative(around[0], codes[33]) < 0.05 and relative(around[1], codes[34]) < 0.05
    assert relative(solve_at_times(trajectory, times).w_plus, codes) < 1e-5


def test_fast_motion_one_bad_code_and_steady_motion_are_no_cuts() -> None:
    states = smooth_codes(60).reshape(60, -1)
    times = np.arange(60) / 25.0
    assert find_cuts(times, states) == ()
    bad = states.copy()
    bad[20] += 5.0
    assert find_cuts(times, bad) == ()
    fast = states.copy()
    fast[20:25] += np.linspace(0, 12, 5)[:, None]
    fast[25:] += 12
    assert find_cuts(times, fast) == ()


def test_each_shot_seen_in_the_pictures_has_a_path_of_its_own() -> None:
    codes, times = smooth_codes(60), np.arange(60) / 25.0
    codes[30:] += 0.6 * (codes[30] - codes[28])  # the codes alone do not show this cut
    clip = dataclasses.replace(inverted_clip(codes, times), cuts_s=np.array([29.5 / 25]))
    alone = fit_trajectory(dataclasses.replace(clip, cuts_s=None))
    assert alone.certificate["cuts_s"] == []
    trajectory = fit_trajectory(clip)
    assert trajectory.certificate["cuts_s"] == pytest.approx([29.5 / 25]) and trajectory.certificate["passed"]
    after = slice(30, 60)
    shot = fit_trajectory(inverted_clip(codes[after], times[after]), TrajectorySettings(reference="natural cubic"))
    same = fit_trajectory(clip, TrajectorySettings(reference="natural cubic"))
    between = times[30:-1] + 0.02
    assert relative(solve_at_times(same, between).w_plus, solve_at_times(shot, between).w_plus) < 2e-3
    assert fit_trajectory(clip, TrajectorySettings(cuts="none")).certificate["cuts_s"] == []


def test_cuts_seen_and_cuts_that_only_the_codes_show_are_joined() -> None:
    codes, times = _two_shots()
    states = codes.reshape(60, -1)
    seen = np.array([10.2, 10.4, 33.7]) / 25
    assert cuts_of_clip(times, states, seen) == pytest.approx([10.2 / 25, 33.7 / 25])
    assert cuts_of_clip(times, states, seen[:2]) == pytest.approx([10.2 / 25, 33.5 / 25])
    assert cuts_of_clip(times, states, None) == pytest.approx([33.5 / 25])


def test_a_shot_with_one_keyframe_stands_still() -> None:
    codes, times = _two_shots()
    clip = dataclasses.replace(inverted_clip(codes, times), cuts_s=np.array([33.5, 34.5]) / 25)
    trajectory = fit_trajectory(clip)
    assert trajectory.certificate["cuts_s"] == pytest.approx(clip.cuts_s)
    held = solve_at_times(trajectory, np.array([33.6, 34.0, 34.4]) / 25, faithful=0.0).w_plus[:]
    assert relative(held, np.repeat(codes[34:35], 3, axis=0)) < 1e-4


def test_keyframes_are_split_at_cuts_between_them() -> None:
    times = np.arange(6.0)
    runs, used = split_at_cuts(times, (2.5, 2.7, 4.0, -1.0, 9.0))
    assert [(r.start, r.stop) for r in runs] == [(0, 3), (3, 4), (4, 6)]
    assert used == [2.5, 4.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dopri99"}, "method should be one of dopri5"),
        ({"reference": "bezier"}, "reference should be one of"),
        ({"state_dependence": 1.5}, "state_dependence should be between 0 and 1"),
        ({"rtol": 0.0}, "rtol should be between"),
        ({"cuts": "maybe"}, "cuts should be"),
        ({"rank": 0}, "rank should be between 1 and 512"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrajectorySettings(**settings)
