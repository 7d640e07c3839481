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
    """A trained network as the vector field of a trajectory: one window over the whole clip."""

    def __init__(self, network: nn.Module, start: Tensor, end: Tensor, span: float) -> None:
        """
        Args:
            network: f(t, y), t from 0 to `span`.
            start: `(size,)` first observed state.
            end: `(size,)` last observed state.
        """
        super().__init__()
        self.network, self.span = network, span
        self.register_buffer("edges", torch.tensor([0.0, 1.0], dtype=torch.float64))
        self.register_buffer("starts", start[None].detach().clone())
        self.register_buffer("ends", end[None].detach().clone())

    def forward(self, tau: Tensor, y: Tensor) -> Tensor:
        """dy/dtau for tau in [0, 1] and `(B, size)` states."""
        return self.network(tau * self.span, y) * self.span

    def in_windows(self, windows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """dy/dx, as `PathField` asks for it."""
        flat = y.reshape(-1, y.shape[-1])
        return (self.forward(((x + 1) / 2).reshape(-1), flat) / 2).view(y.shape)
