"""A path that is learned from the clip itself: motion that comes back tells what happens between two keyframes.

An autonomous network dy/dtau = f(y), which knows only where the state is, is trained on the velocities of the plain
reference and then by shooting over one to four gaps. Between two keyframes the path leaves the first forward in time
and reaches the second backward in time, blended. The closed form is then fitted to it, so that it costs nothing
afterwards. Ours; training by shooting over several gaps is the paper's loss on short stretches.

On request only, and only where cross-validation finds it better: `benchmarks/README.md` has what it gains (29 % in the
best case) and why cross-validation cannot be trusted blindly here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .spline import SplineReference
from .threads import one_thread

if TYPE_CHECKING:
    from .reference import Reference

GAIN = 0.95
"""Share of the plain reference's held-out error that the learned path must stay below."""
FEWEST = 12
"""Keyframes from which halves of them still tell something."""
PER_GAP = 6
"""Knots of the learned path per gap between keyframes."""
_WIDTH, _LONGEST_SHOT = 128, 4
_BATCH, _STARTS, _SUBSTEPS = 128, 64, 3
_STATE_NOISE = 0.05
States = Callable[[np.ndarray], np.ndarray]
"""`(M,)` tau to `(M, r)` states."""
Fit = Callable[[np.ndarray, np.ndarray], "Reference"]
"""`(K,)` times and `(K, r)` states to the plain reference."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Effort:
    """How long one training takes."""

    collocation_steps: int = 800
    shooting_steps: int = 500
    on_step: Callable[[], None] = _nothing
    """Called after each step; may raise to cancel."""


@dataclass(frozen=True)
class LearnedFit:
    """A learned path, and what cross-validation says of it and of the plain reference."""

    reference: SplineReference
    learned_error: float
    plain_error: float
    """Both ||prediction - state|| / ||state - mean|| over keyframes that were left out."""

    @property
    def is_better(self) -> bool:
        """Whether it predicts left-out keyframes clearly better."""
        return self.learned_error < GAIN * self.plain_error


class _Autonomous(nn.Module):
    """f(y): two hidden layers with SiLU, in units of the rms speed."""

    def __init__(self, rank: int, speed: float) -> None:
        super().__init__()
        self.speed = speed
        self.model = nn.Sequential(
            nn.Linear(rank, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, rank)
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


def _train(times: np.ndarray, states: np.ndarray, plain: Reference, seed: int, effort: Effort) -> nn.Module:
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
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, effort.collocation_steps, 1e-4)
    for _ in range(effort.collocation_steps):
        index = torch.from_numpy(rng.integers(0, len(grid), _BATCH))
        near = positions[index] + _STATE_NOISE * torch.randn(_BATCH, states.shape[1], generator=noise)
        _descend(network, ((network(near) - velocities[index]) / speed).square().mean(), optimiser)
        schedule.step()
        effort.on_step()
    at, target = torch.from_numpy(times).float()[:, None], torch.from_numpy(states).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, effort.shooting_steps, 1e-5)
    for step in range(effort.shooting_steps):
        length = 1 + step % _LONGEST_SHOT
        start = torch.from_numpy(rng.integers(0, len(times) - length, min(_STARTS, len(times) - length)))
        y, loss = target[start], torch.zeros(())
        for k in range(length):
            y = _advance(network, y, at[start + k + 1] - at[start + k])
            loss = loss + (y - target[start + k + 1]).square().mean() / length
        _descend(network, loss, optimiser)
        schedule.step()
        effort.on_step()
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


def _learn(times: np.ndarray, states: np.ndarray, fit: Fit, seed: int, effort: Effort) -> States:
    """The learned path through the plain reference's states at the keyframes."""
    plain = fit(times, states)
    smoothed = plain.position(times)
    network = _train(times, smoothed, plain, seed, effort)
    return lambda tau: _between(network, times, smoothed, tau)


def fit_learned(
    times: np.ndarray, states: np.ndarray, fit: Fit, *, seed: int = 0, effort: Effort | None = None
) -> LearnedFit:
    """Learn a path for `(K, r)` states at `(K,)` times and cross-validate it.

    Cross-validation is blocked: in one half of the clip every other keyframe is left out, then in the other half.

    Args:
        fit: The plain reference.
        effort: How long each of the three trainings takes.
    """
    effort = effort or Effort()
    count = len(times)
    learned = plain = 0.0
    with one_thread(torch.device("cpu")):
        for low, high in ((1, count // 2), (count // 2, count - 1)):
            left = np.arange(low, high, 2)
            kept = np.setdiff1d(np.arange(count), left)
            path = _learn(times[kept], states[kept], fit, seed, effort)
            learned += float(np.square(path(times[left]) - states[left]).sum())
            plain += float(np.square(fit(times[kept], states[kept]).position(times[left]) - states[left]).sum())
        path = _learn(times, states, fit, seed, effort)
        grid = (times[:-1, None] + np.diff(times)[:, None] * np.arange(PER_GAP) / PER_GAP).ravel()
        grid = np.append(grid, times[-1])
        reference = SplineReference(grid, path(grid))
    scale = float(np.square(states - states.mean(axis=0)).sum()) / 2 or 1.0
    return LearnedFit(reference, float(np.sqrt(learned / scale)), float(np.sqrt(plain / scale)))
