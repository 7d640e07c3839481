"""Vector fields trained by gradients: the multi-layer perceptron of the paper and the one its authors released.

Convention: the state of these fields is the W+ code itself, `(B, L * D)`, rows of a code one after another.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .vector_field import PathField


class ReleasedField(nn.Module):
    """The field of the authors' released program: the same perceptron for every row of the code, time unused.

    The output is divided by its norm over the L rows, channel by channel, as in the released program. The speed of
    every channel is therefore fixed, which leaves a floor under the error that no training removes.
    """

    def __init__(self, rows: int, channels: int, *, depth: int = 5, seed: int = 0) -> None:
        """L = `rows`, D = `channels`, `depth` linear layers of D units with leaky ReLU (slope 0.2) between."""
        super().__init__()
        self.rows, self.channels = rows, channels
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(depth - 1):
                layers += [nn.Linear(channels, channels), nn.LeakyReLU(0.2)]
            layers.append(nn.Linear(channels, channels))
        self.model = nn.Sequential(*layers)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dz/dt for `(B, L * D)` codes; t is ignored."""
        speed = self.model(y.view(-1, self.rows, self.channels))
        return (speed / (speed.norm(dim=1, keepdim=True) + 1e-6)).reshape(y.shape)


class CodeNetwork(nn.Module):
    """A perceptron over the whole standardised code and, if asked, the time: the paper's ODEfunc."""

    def __init__(self, size: int, *, hidden: int = 256, depth: int = 3, use_time: bool = True, seed: int = 0) -> None:
        """`size` = L * D inputs and outputs, `depth` - 1 hidden layers of `hidden` units with SiLU."""
        super().__init__()
        self.use_time = use_time
        widths = [size + use_time, *[hidden] * (depth - 1), size]
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
                layers += [nn.Linear(inputs, outputs), nn.SiLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt for `(B, L * D)` standardised codes and a scalar or `(B,)` t."""
        if not self.use_time:
            return self.model(y)
        return self.model(torch.cat([y, t.to(y).expand(len(y))[:, None]], dim=-1))


class NetworkField(PathField):
    """A trained network as the vector field of a trajectory: one window over the whole clip, or one for each shot."""

    moving: Tensor
    """`(W,)` bool: False where the path stands still, between a cut and the nearest keyframe."""

    def __init__(
        self,
        network: nn.Module,
        starts: Tensor,
        ends: Tensor,
        span: float,
        edges: Tensor | None = None,
        moving: Tensor | None = None,
    ) -> None:
        """
        Args:
            network: f(t, y), t from 0 to `span` over the clip.
            starts: `(W, size)` states in which the windows begin.
            ends: `(W, size)` states in which the solution leaves them.
            edges: `(W + 1,)` normalised times, 0 to 1; None for one window.
            moving: `(W,)` bool; None: everywhere.
        """
        super().__init__()
        device = starts.device
        edges = torch.tensor([0.0, 1.0]) if edges is None else edges
        self.network, self.span = network, span
        self.register_buffer("edges", edges.to(device).double())
        self.register_buffer("starts", starts.detach().clone())
        self.register_buffer("ends", ends.detach().clone())
        everywhere = torch.ones(len(starts), dtype=torch.bool)
        self.register_buffer("moving", (everywhere if moving is None else moving).to(device))

    @property
    def collocation_steps(self) -> int:
        """As in the base class: shared among the shots."""
        return max(16, super().collocation_steps // max(1, int(self.moving.sum())))

    def forward(self, tau: Tensor, y: Tensor) -> Tensor:
        """dy/dtau for a scalar or `(B,)` tau in [0, 1] and `(B, size)` states."""
        tau = tau.to(y).expand(len(y))
        edges = self.edges.to(tau)
        window = (torch.bucketize(tau, edges, right=True) - 1).clamp(0, len(edges) - 2)
        speed = self.network(tau * self.span, y) * self.span
        return torch.where(self.moving[window][:, None], speed, torch.zeros_like(speed))

    def in_windows(self, windows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """dy/dx, as `PathField` asks for it."""
        low, half = self.edges[windows], (self.edges[windows + 1] - self.edges[windows]) / 2
        tau = low.to(y)[:, None] + (x + 1) * half.to(y)[:, None]
        flat = y.reshape(-1, y.shape[-1])
        speed = self.network(tau.reshape(-1) * self.span, flat).view(y.shape)
        speed = speed * (half * self.span).to(y)[:, None, None]
        return torch.where(self.moving[windows][:, None, None], speed, torch.zeros_like(speed))
