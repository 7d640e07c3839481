"""Measure whether a path learned from the clip itself predicts left-out frames better than the plain reference.

    python benchmarks/learned_path.py --out benchmarks/results/learned-path.json

It is not offered in the pack; benchmarks/README.md says why. An autonomous network dy/dtau = f(y), which knows only
where the state is, is trained on the whole clip: first on the velocities of the reference, then by shooting over one
to four gaps. Between two keyframes the path leaves the first forward in time and reaches the second backward in time,
blended. The clips are synthetic, in the space of the released codes' principal axes: five rounds of one closed curve
at a constant and at a varying pace (the best case for learning), seen every 7th frame, and motion that never comes
back.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from trajectory import machine  # noqa: E402

from dynode_core.ode.reference import Reference, fit_reference  # noqa: E402
from dynode_core.ode.spline import SplineReference  # noqa: E402
from dynode_core.ode.threads import one_thread  # noqa: E402

GAIN = 0.95
"""Share of the plain reference's held-out error that the learned path must stay below."""
WIDTH, COLLOCATION_STEPS, SHOOTING_STEPS, LONGEST_SHOT = 128, 800, 500, 4
_BATCH, _STARTS, _SUBSTEPS, _PER_GAP = 128, 64, 3, 6
_STATE_NOISE = 0.05
States = Callable[[np.ndarray], np.ndarray]
"""`(M,)` tau to `(M, r)` states."""
Fit = Callable[[np.ndarray, np.ndarray], Reference]
"""`(K,)` times and `(K, r)` states to the plain reference."""


@dataclass(frozen=True)
class LearnedFit:
    """A learned path, and what cross-validation says of it and of the plain reference."""

    reference: SplineReference
    learned_error: float
    plain_error: float
    """Both ||prediction - state|| / ||state - mean|| over keyframes that were left out."""

    @property
    def is_better(self) -> bool:
        return self.learned_error < GAIN * self.plain_error


class _Autonomous(nn.Module):
    """f(y): two hidden layers with SiLU, in units of the rms speed."""

    def __init__(self, rank: int, speed: float) -> None:
        super().__init__()
        self.speed = speed
        self.model = nn.Sequential(
            nn.Linear(rank, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, rank)
        )

    def forward(self, y: Tensor) -> Tensor:
        return self.model(y) * self.speed


def _advance(network: nn.Module, y: Tensor, span: Tensor) -> Tensor:
    """`(n, r)` states moved on by `(n, 1)` spans (negative: back) with Runge-Kutta steps of order 4."""
    h = span / _SUBSTEPS
    for _ in range(_SUBSTEPS):
        k1 = network(y)
        k2 = network(y + h / 2 * k1)
        k3 = network(y + h / 2 * k2)
        k4 = network(y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def _train(times: np.ndarray, states: np.ndarray, plain: Reference, seed: int) -> nn.Module:
    """The network for `(K, r)` smoothed states at `(K,)` times."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(times[0], times[-1], 2000)
    positions, velocities = (torch.from_numpy(part(grid)).float() for part in (plain.position, plain.velocity))
    speed = max(float(velocities.square().mean().sqrt()), 1e-12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Autonomous(states.shape[1], speed)
        noise = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, COLLOCATION_STEPS, 1e-4)
    for _ in range(COLLOCATION_STEPS):
        index = torch.from_numpy(rng.integers(0, len(grid), _BATCH))
        near = positions[index] + _STATE_NOISE * torch.randn(_BATCH, states.shape[1], generator=noise)
        _descend(network, ((network(near) - velocities[index]) / speed).square().mean(), optimiser)
        schedule.step()
    at, target = torch.from_numpy(times).float()[:, None], torch.from_numpy(states).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, SHOOTING_STEPS, 1e-5)
    for step in range(SHOOTING_STEPS):
        length = 1 + step % LONGEST_SHOT
        start = torch.from_numpy(rng.integers(0, len(times) - length, min(_STARTS, len(times) - length)))
        y, loss = target[start], torch.zeros(())
        for k in range(length):
            y = _advance(network, y, at[start + k + 1] - at[start + k])
            loss = loss + (y - target[start + k + 1]).square().mean() / length
        _descend(network, loss, optimiser)
        schedule.step()
    return network.requires_grad_(False)


def _descend(network: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    if bool(torch.isfinite(loss)):
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()


def _between(network: nn.Module, times: np.ndarray, states: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """`(M, r)`: forward from the keyframe before and backward from the one after, blended."""
    before = np.clip(np.searchsorted(times, tau, side="right") - 1, 0, len(times) - 2)
    share = np.clip((tau - times[before]) / (times[before + 1] - times[before]), 0.0, 1.0)
    target = torch.from_numpy(states).float()

    def from_keyframe(index: np.ndarray) -> np.ndarray:
        span = torch.from_numpy(tau - times[index]).float()[:, None]
        moved: np.ndarray = _advance(network, target[torch.from_numpy(index)], span).double().numpy()
        return moved

    rise = (share * share * (3 - 2 * share))[:, None]
    return (1 - rise) * from_keyframe(before) + rise * from_keyframe(before + 1)


def _learn(times: np.ndarray, states: np.ndarray, fit: Fit, seed: int) -> States:
    """The learned path through the plain reference's states at the keyframes."""
    plain = fit(times, states)
    smoothed = plain.position(times)
    network = _train(times, smoothed, plain, seed)
    return lambda tau: _between(network, times, smoothed, tau)


def fit_learned(times: np.ndarray, states: np.ndarray, fit: Fit, *, seed: int = 0) -> LearnedFit:
    """Learn a path for `(K, r)` states at `(K,)` times and cross-validate it.

    Cross-validation is blocked: in one half of the clip every other keyframe is left out, then in the other half.

    Args:
        fit: The plain reference.
    """
    count = len(times)
    learned = plain = 0.0
    with one_thread(torch.device("cpu")):
        for low, high in ((1, count // 2), (count // 2, count - 1)):
            left = np.arange(low, high, 2)
            kept = np.setdiff1d(np.arange(count), left)
            path = _learn(times[kept], states[kept], fit, seed)
            learned += float(np.square(path(times[left]) - states[left]).sum())
            plain += float(np.square(fit(times[kept], states[kept]).position(times[left]) - states[left]).sum())
        path = _learn(times, states, fit, seed)
        grid = (times[:-1, None] + np.diff(times)[:, None] * np.arange(_PER_GAP) / _PER_GAP).ravel()
        grid = np.append(grid, times[-1])
        reference = SplineReference(grid, path(grid))
    scale = float(np.square(states - states.mean(axis=0)).sum()) / 2 or 1.0
    return LearnedFit(reference, float(np.sqrt(learned / scale)), float(np.sqrt(plain / scale)))


def _rel(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth - truth.mean(0)))


def released_axes() -> tuple[np.ndarray, float]:
    """`(11, 10)` released codes along their principal axes, in units of their rms, and that unit."""
    from safetensors.torch import load_file

    folder = Path(os.environ.get("DYNODE_SHARED", REPOSITORY.parent / "shared"))
    path = folder / "assets" / "latents" / "dynode_released_w_plus.safetensors"
    codes = load_file(path)["w_plus"].float().reshape(11, -1).numpy()
    centred = codes - codes.mean(0)
    states = centred @ np.linalg.svd(centred, full_matrices=False)[2][:10].T
    unit = float(np.sqrt((states**2).mean()))
    return states / unit, unit


def rounds(pace: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times, true states, indices of keyframes, and states seen there: a closed curve through six released codes."""
    from scipy.interpolate import CubicSpline

    states, unit = released_axes()
    rng = np.random.default_rng(seed)
    corners = states[[0, 3, 5, 7, 8, 10, 0]]
    curve = CubicSpline(np.linspace(0, 1, 7), corners, bc_type="periodic")
    frames = np.arange(181.0)
    clean = curve((frames / 36 + pace * np.sin(2 * np.pi * frames / 97)) % 1)
    seen = np.arange(0, 181, 7)
    return frames / 180, clean, seen, clean[seen] + rng.standard_normal((len(seen), 10)) * 8 / unit / np.sqrt(10)


def wandering() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same for 400 frames of motion that never comes back, seen every 4th frame."""
    from scipy.interpolate import CubicSpline

    rng = np.random.default_rng(0)
    waypoints = rng.standard_normal((42, 10))
    for i in range(1, len(waypoints)):
        waypoints[i] = 0.5 * waypoints[i - 1] + np.sqrt(0.75) * waypoints[i]
    strengths = np.array([77.7, 40.6, 28.5, 22.1, 18.2, 13.0, 12.0, 9.5, 6.8, 4.2]) / 35
    clean = CubicSpline(np.arange(42) * 10, waypoints * strengths, bc_type="natural")(np.arange(400))
    seen = np.arange(0, 400, 4)
    return np.arange(400) / 399, clean, seen, clean[seen] + 0.05 * rng.standard_normal((100, 10))


def measure(times: np.ndarray, clean: np.ndarray, seen: np.ndarray, states: np.ndarray) -> dict[str, Any]:
    """Errors at the frames that were not seen, and what cross-validation on the seen ones says."""

    def plain(at: np.ndarray, values: np.ndarray) -> Reference:
        return fit_reference(at, values).reference

    knots, left = times[seen], np.setdiff1d(np.arange(seen[-1]), seen)
    begin = time.process_time()
    learned = fit_learned(knots, states, plain)
    seconds = time.process_time() - begin
    straight = np.stack([np.interp(times[left], knots, column) for column in states.T], axis=1)
    return {
        "keyframes": len(seen),
        "linear": _rel(straight, clean[left]),
        "plain": _rel(plain(knots, states).position(times[left]), clean[left]),
        "learned": _rel(learned.reference.position(times[left]), clean[left]),
        "cross_validated_learned": learned.learned_error,
        "cross_validated_plain": learned.plain_error,
        "would_be_used": learned.is_better,
        "cpu_s": round(seconds, 1),
    }


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine()}
    for name, clip in (
        ("rounds at constant pace", rounds(0.0, 1)),
        ("rounds at varying pace", rounds(0.15, 2)),
        ("motion that never comes back", wandering()),
    ):
        report[name] = measure(*clip)
        print(json.dumps({name: report[name]}, indent=2), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
