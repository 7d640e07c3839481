"""Keyframes chosen by motion: close together where the face moves fast, far apart where it rests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from problems import inverted_clip, smooth_codes

from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times
from dynode_pack.dynode_core.ode.monotone import MonotoneReference
from dynode_pack.dynode_core.ode.reference import fit_reference

FPS = 25.0
CALM, FAST = 13, 2


def motion_keyframes(repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames and `(K, 12)` codes: at rest, a quick move to another face, at rest there, and back."""
    rng = np.random.default_rng(0)
    faces = rng.standard_normal((2, 12))
    frames, shares = [0], [0.0]
    for turn in range(repeats):
        rising = turn % 2 == 0
        for gap, share in ((CALM, 0), (CALM, 0), (FAST, 0.3), (FAST, 0.7), (FAST, 1), (CALM, 1)):
            frames.append(frames[-1] + gap)
            shares.append(share if rising else 1 - share)
    share = np.array(shares)[:, None]
    wander = 0.02 * rng.standard_normal((len(frames), 12))
    return np.array(frames), faces[0] + share * (faces[1] - faces[0]) + wander


@pytest.mark.parametrize("repeats", [2, 6], ids=["13 keyframes", "37 keyframes"])
def test_a_face_at_rest_stays_at_rest_beside_a_fast_move(repeats: int) -> None:
    frames, values = motion_keyframes(repeats)
    codes = torch.from_numpy(values.reshape(-1, 2, 6)).float()
    trajectory = fit_trajectory(inverted_clip(codes, frames / FPS), TrajectorySettings(check_held_out=False))
    assert trajectory.certificate["passed"]
    assert trajectory.certificate["reference"] == "monotone cubic"
    dense = np.arange(frames[-1] + 1)
    for faithful in (0.0, 1.0):
        solved = solve_at_times(trajectory, dense / FPS, faithful=faithful).w_plus.flatten(1).numpy()
        chord = np.stack([np.interp(dense, frames, values[:, i]) for i in range(12)], axis=1)
        spread = np.linalg.norm(values - values.mean(0), axis=1).mean()
        away = np.linalg.norm(solved - chord, axis=1) / spread
        assert away.max() < 0.2
    spline = fit_reference(frames / frames[-1], values, kind="natural cubic").reference.position(dense / frames[-1])
    assert (np.linalg.norm(spline - chord, axis=1) / spread).max() > 0.2


def test_a_shot_with_fast_moves_makes_neither_basis_nor_windows_of_the_others_finer() -> None:
    frames, values = motion_keyframes(4)
    still = smooth_codes(300, rows=2, channels=6, axes=5) * 0.3 + 20
    codes = np.concatenate([values.reshape(-1, 2, 6), still])
    times = np.concatenate([frames, frames[-1] + 10 + np.arange(300)]) / FPS
    clip = dataclasses.replace(inverted_clip(codes, times), cuts_s=np.array([(frames[-1] + 5) / FPS]))
    settings = TrajectorySettings(check_held_out=False)
    both, alone = (fit_trajectory(part, settings) for part in (clip, inverted_clip(still, np.arange(300) / FPS)))
    assert both.certificate["passed"] and both.certificate["tries"] == 1
    assert both.certificate["reference"] == "monotone cubic"
    assert both.vector_field.num_frequencies == alone.vector_field.num_frequencies
    after = both.vector_field.edges.numpy() * times[-1] > (frames[-1] + 9) / FPS
    assert after.sum() == len(alone.vector_field.edges)


def test_monotone_pieces_stay_between_their_ends_and_the_velocity_is_the_slope() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.1, 2, 12))
    values = rng.standard_normal((12, 3))
    path = MonotoneReference(times, values)
    assert np.allclose(path.position(times), values)
    dense = np.linspace(times[0], times[-1], 2001)
    after = np.searchsorted(times, dense, side="right").clip(1, 11)
    low, high = np.minimum(values[after - 1], values[after]), np.maximum(values[after - 1], values[after])
    found = path.position(dense)
    assert bool(((found >= low - 1e-12) & (found <= high + 1e-12)).all())
    h = 1e-6
    inner = dense[1:-1]
    slopes = (path.position(inner + h) - path.position(inner - h)) / (2 * h)
    assert np.allclose(slopes, path.velocity(inner), atol=1e-3)


def test_even_keyframes_keep_the_path_that_predicts_left_out_ones_better() -> None:
    tau = np.linspace(0, 1, 20)
    smooth = np.stack([np.sin(3 * tau), np.cos(4 * tau)], axis=1)
    assert fit_reference(tau, smooth).kind == "gaussian process"
    steps = np.repeat(np.random.default_rng(2).standard_normal((5, 2)), 4, axis=0)
    assert fit_reference(tau, steps).kind == "monotone cubic"
