"""The vector field f_theta(y, tau): a network with fixed random hidden layers and one solved head per window.

The clip is cut into W windows of about 64 observation gaps. Inside window k, with the local time x in [-1, 1],

    dy/dtau = speed * (H_t^k [g, silu(A g + a), 1] + H_s^k phi(g_17, alpha y)),
    g = [x, sin(pi j x / 2), cos(pi j x / 2)]

where phi is a two-layer SiLU network. It is a neural ODE like any other: it can be integrated from any state. (Paper,
equation 4; the windowed form is ours.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 64
"""Units of each hidden layer."""
STATE_FREQUENCIES = 8
"""Lowest frequencies that phi sees beside x: 17 numbers."""
STATE_GAIN = 0.3
"""alpha: how strongly phi sees the state."""
FREQUENCY_SHARE = 0.75
"""Half-waves per interval of the quadrature that the heads are fitted with."""


StageSlopes = Callable[[int, Tensor], Tensor]
"""Number of a stage and `(V, M, r)` states to `(V, M, r)` derivatives."""


class PathField(nn.Module):
    """What the path solvers need of a vector field: it is smooth inside windows of [0, 1]."""

    edges: Tensor
    """`(W + 1,)` float64 increasing tau, 0 to 1."""
    starts: Tensor
    """`(W, r)`: where the observed path enters each window; a first guess, and the place of jumps at cuts."""
    ends: Tensor
    """`(W, r)`: where it leaves. `starts[k + 1] - ends[k]` is the jump at edge k + 1: zero unless a cut lies there."""

    @property
    def collocation_steps(self) -> int:
        """Steps per window, even, with which the parallel solver begins."""
        return 64

    def keep_precision(self, edges: Tensor, starts: Tensor, ends: Tensor) -> None:
        """Put back these tensors after a cast: in float32 the edges of a long clip would be too coarse."""
        self.edges, self.starts, self.ends = edges, starts, ends

    def in_windows(self, windows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """dy/dx for `(V,)` int64 windows, `(V, M)` local times in [-1, 1] and `(V, M, r)` states: `(V, M, r)`."""
        raise NotImplementedError

    def bind(self, windows: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`in_windows` as a function of times and states, for repeated calls in the same windows."""
        return lambda x, y: self.in_windows(windows, x, y)

    def at_times(self, windows: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`in_windows` as a function of the states, for repeated calls at the same times."""
        return lambda y: self.in_windows(windows, x, y)

    def staged(self, windows: Tensor) -> Callable[[Tensor], StageSlopes]:
        """`in_windows` for Runge-Kutta steps, whose times are known before their states.

        Returns:
            A function from the `(S, V, M)` local times of the stages of a step to `StageSlopes`.
        """
        slopes = self.bind(windows)
        return lambda x: lambda stage, y: slopes(x[stage], y)


def _seeded(generator: torch.Generator, *shape: int, deviation: float) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * deviation


class WindowedField(PathField):
    """The closed-form field. All tensors are buffers: nothing in it is trained by gradients."""

    heads: Tensor
    frequencies: Tensor
    time_weight: Tensor
    time_bias: Tensor
    state_weight: Tensor
    state_bias: Tensor
    mixing_weight: Tensor
    mixing_bias: Tensor

    def __init__(self, edges: Tensor, rank: int, num_frequencies: int, speed: float, *, seed: int = 0) -> None:
        """A field that is zero until `heads` are solved.

        Args:
            edges: `(W + 1,)` float64 tau from 0 to 1.
            num_frequencies: Half-waves j = 1 .. this many per window.
            speed: Rms of dy/dtau along the path, the unit of the heads.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        windows, seen = len(edges) - 1, 1 + 2 * min(STATE_FREQUENCIES, num_frequencies)
        width = 1 + 2 * num_frequencies
        self.speed = speed
        self.rank = rank
        self.num_frequencies = num_frequencies
        self.seed = seed
        self.register_buffer("edges", edges.double())
        self.register_buffer("starts", torch.zeros(windows, rank, dtype=torch.float64))
        self.register_buffer("ends", torch.zeros(windows, rank, dtype=torch.float64))
        steps = torch.arange(1, num_frequencies + 1, dtype=torch.float64)
        self.register_buffer("frequencies", steps * (math.pi / 2))
        deviation = 1 / math.sqrt(num_frequencies)
        self.register_buffer("time_weight", _seeded(generator, HIDDEN, width, deviation=deviation))
        self.register_buffer("time_bias", _seeded(generator, HIDDEN, deviation=0.1))
        weight = _seeded(generator, HIDDEN, seen + rank, deviation=1.0)
        weight[:, :seen] /= math.sqrt(3 * seen)
        weight[:, seen:] /= math.sqrt(rank)
        self.register_buffer("state_weight", weight)
        self.register_buffer("state_bias", _seeded(generator, HIDDEN, deviation=0.1))
        self.register_buffer("mixing_weight", _seeded(generator, HIDDEN, HIDDEN, deviation=1 / math.sqrt(3 * HIDDEN)))
        self.register_buffer("mixing_bias", _seeded(generator, HIDDEN, deviation=0.1))
        self.register_buffer("heads", torch.zeros(windows, width + 2 * HIDDEN + 1, rank, dtype=torch.float64))

    @property
    def collocation_steps(self) -> int:
        """As in the base class: enough for the fastest wave."""
        return 2 * math.ceil(self.num_frequencies / FREQUENCY_SHARE / 2)

    def time_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(..., M)` local times to the `(..., M, F_t)` features of the time head and the 17 numbers that phi sees."""
        phase = x[..., None] * self.frequencies
        sines, cosines = torch.sin(phase), torch.cos(phase)
        waves = torch.cat([x[..., None], sines, cosines], dim=-1)
        hidden = functional.silu(functional.linear(waves, self.time_weight, self.time_bias))
        few = STATE_FREQUENCIES
        seen = torch.cat([x[..., None], sines[..., :few], cosines[..., :few]], dim=-1)
        return torch.cat([waves, hidden, torch.ones_like(x[..., None])], dim=-1), seen

    def state_features(self, seen: Tensor, y: Tensor) -> Tensor:
        """phi: `(..., M, 17)` and `(..., M, r)` to `(..., M, 64)`."""
        joined = torch.cat([seen, STATE_GAIN * y], dim=-1)
        hidden = functional.silu(functional.linear(joined, self.state_weight, self.state_bias))
        return functional.silu(functional.linear(hidden, self.mixing_weight, self.mixing_bias))

    def _heads(self, windows: Tensor) -> Tensor:
        """`(V, F, r)` heads in units of dy/dx."""
        half_widths = (self.edges[windows + 1] - self.edges[windows]) / 2
        return self.heads[windows] * (self.speed * half_widths).to(self.heads)[:, None, None]

    def bind(self, windows: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """As in the base class; heads are gathered once."""
        heads = self._heads(windows)

        def slopes(x: Tensor, y: Tensor) -> Tensor:
            of_time, seen = self.time_features(x)
            return torch.bmm(torch.cat([of_time, self.state_features(seen, y)], dim=-1), heads)

        return slopes

    def at_times(self, windows: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
        """As in the base class; what depends on time alone is computed once, too."""
        of_time, seen = self.time_features(x)
        heads = self._heads(windows)
        return lambda y: torch.bmm(torch.cat([of_time, self.state_features(seen, y)], dim=-1), heads)

    def staged(self, windows: Tensor) -> Callable[[Tensor], StageSlopes]:
        """As in the base class; what depends on time alone is computed once for all stages of a step."""
        heads, known = self._heads(windows), self.state_weight.shape[1] - self.rank
        of_time, of_state = heads[:, :-HIDDEN], heads[:, -HIDDEN:]
        from_time, from_state = self.state_weight[:, :known], STATE_GAIN * self.state_weight[:, known:]

        def at(x: Tensor) -> StageSlopes:
            stages, count, rows = x.shape
            features, seen = self.time_features(x.transpose(0, 1).reshape(count, -1))
            driven = torch.bmm(features, of_time).view(count, stages, rows, -1).unbind(1)
            hidden = functional.linear(seen, from_time, self.state_bias).view(count, stages, rows, -1).unbind(1)

            def slopes(stage: int, y: Tensor) -> Tensor:
                phi = functional.silu(hidden[stage] + functional.linear(y, from_state))
                phi = functional.silu(functional.linear(phi, self.mixing_weight, self.mixing_bias))
                return torch.baddbmm(driven[stage], phi, of_state)

            return slopes

        return at

    def in_windows(self, windows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """As in the base class."""
        return self.bind(windows)(x, y)

    def forward(self, tau: Tensor, y: Tensor) -> Tensor:
        """dy/dtau for a scalar or `(B,)` tau in [0, 1] and `(B, r)` states, the signature of any ODE package."""
        tau = tau.to(y).expand(len(y))
        window = (torch.bucketize(tau, self.edges.to(tau), right=True) - 1).clamp(0, len(self.edges) - 2)
        edges = self.edges.to(tau)
        low, high = edges[window], edges[window + 1]
        x = 2 * (tau - low) / (high - low) - 1
        return self.in_windows(window, x[:, None], y[:, None])[:, 0] * (2 / (high - low))[:, None]
