"""Initial-value problems with exact answers, and clips of codes whose motion is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from dynode_pack.dynode_core.types import AlignedClip, FaceTrack, InvertedClip, VideoClip

FAMILY, GENERATOR = "test-family", "0123456789abcdef"


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y), y(t0) = y0 with its solution. B rows."""

    name: str
    field: Callable[[Tensor, Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]
    """`(N,)` times to `(B, N, D)` states."""
    t0: float
    t1: float

    @property
    def y0(self) -> Tensor:
        return self.exact(torch.tensor([self.t0], dtype=torch.float64))[:, 0]


def decay() -> Problem:
    """y' = -k y with three rates in three rows."""
    rates = torch.tensor([[0.5], [2.0], [7.0]], dtype=torch.float64)
    return Problem("decay", lambda t, y: -rates * y, lambda t: torch.exp(-rates[:, :, None] * t[None, :, None]), 0, 2)


def oscillator() -> Problem:
    """A rotation in the plane: the length of the state is conserved."""
    turn = torch.tensor([[0.0, 3.0], [-3.0, 0.0]], dtype=torch.float64)

    def exact(t: Tensor) -> Tensor:
        return torch.stack([torch.sin(3 * t), torch.cos(3 * t)], dim=-1)[None]

    return Problem("oscillator", lambda t, y: y @ turn.T, exact, 0, 4)


def driven() -> Problem:
    """Non-autonomous: y' = -y + sin t + cos t, y = sin t + exp(-t) with three starts."""
    offsets = torch.tensor([[0.0], [1.0], [-2.0]], dtype=torch.float64)

    def exact(t: Tensor) -> Tensor:
        return torch.sin(t)[None, :, None] + offsets[:, :, None] * torch.exp(-t)[None, :, None]

    return Problem("driven", lambda t, y: -y + (torch.sin(t) + torch.cos(t))[:, None], exact, 0, 5)


def logistic() -> Problem:
    """y' = y (1 - y)."""
    starts = torch.tensor([[0.1], [0.5], [1.7]], dtype=torch.float64)

    def exact(t: Tensor) -> Tensor:
        grown = torch.exp(t)[None, :, None] * starts[:, :, None]
        return grown / (1 - starts[:, :, None] + grown)

    return Problem("logistic", lambda t, y: y * (1 - y), exact, 0, 3)


EXACT_PROBLEMS = (decay(), oscillator(), driven(), logistic())


def smooth_codes(count: int, *, rows: int = 4, channels: int = 24, axes: int = 8, seed: int = 0) -> np.ndarray:
    """`(count, rows, channels)` float64 codes on a smooth path of `axes` sinusoids with decaying strength."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((rows * channels, axes)))[0].T
    t = np.arange(count) / 10.0
    rates, phases = rng.uniform(0.3, 2.0, axes), rng.uniform(0, 2 * math.pi, axes)
    weights = np.sin(rates * t[:, None] + phases) * 3.0 * 0.8 ** np.arange(axes)
    mean = rng.standard_normal(rows * channels)
    return (mean + weights @ basis).reshape(count, rows, channels)


def jitter(count: int, size: int, *, correlation: float, seed: int = 0) -> np.ndarray:
    """`(count, size)` AR(1) noise of unit variance."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, size))
    for i in range(1, count):
        noise[i] = correlation * noise[i - 1] + math.sqrt(1 - correlation**2) * noise[i]
    return noise


def inverted_clip(
    codes: np.ndarray | Tensor, times: np.ndarray, *, frame_times: np.ndarray | None = None, fps: Fraction | int = 25
) -> InvertedClip:
    """Codes `(K, L, D)` at `(K,)` seconds as the inverter would hand them over."""
    w_plus = torch.as_tensor(codes).float()
    return InvertedClip(
        w_plus=w_plus,
        times=np.asarray(times, dtype=np.float64),
        frame_indices=np.arange(len(times)),
        loss=np.zeros(len(times), dtype=np.float32),
        frame_times=np.asarray(times if frame_times is None else frame_times, dtype=np.float64),
        fps=Fraction(fps),
        family=FAMILY,
        generator_id=GENERATOR,
    )


def aligned_clip(clip: VideoClip) -> AlignedClip:
    """Every frame cut whole."""
    count, height, width = clip.num_frames, clip.height, clip.width
    quad = np.array([[0, 0], [0, height], [width, height], [width, 0]], dtype=np.float64)
    track = FaceTrack(
        landmarks=np.zeros((count, 478, 2)),
        boxes=np.zeros((count, 4)),
        scores=np.ones(count, dtype=np.float32),
        detected=np.ones(count, dtype=bool),
    )
    return AlignedClip(clip, np.tile(quad, (count, 1, 1)), track, crop_size=64)
