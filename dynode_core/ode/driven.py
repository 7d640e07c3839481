"""Vector fields that a control drives: dy = f(y, tau) dtau + dX(tau).

This is the form of a neural controlled differential equation (Kidger, Morrill, Foster & Lyons, NeurIPS 2020) and, with
a random X, of a latent SDE with additive noise; the paper names both as extensions. Neither torchcde nor torchsde is
used: as X only adds, the equation is an ordinary one in y - X (`DrivenField`), which every solver here takes with its
own step control, and the noise of a seed is drawn exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .vector_field import PathField


class ControlPath(nn.Module):
    """X(tau): cubic Hermite between knots, held before the first and after the last. X is 0 at the anchor."""

    knots: Tensor
    """`(M,)` float64 increasing tau."""
    values: Tensor
    """`(M, r)`."""
    slopes: Tensor
    """`(M, r)` per unit of tau."""

    def __init__(self, knots: Tensor, values: Tensor, slopes: Tensor | None = None) -> None:
        """Without slopes each piece starts and ends at rest: the smoothstep 3 u^2 - 2 u^3."""
        super().__init__()
        self.register_buffer("knots", knots.double())
        self.register_buffer("values", values)
        self.register_buffer("slopes", torch.zeros_like(values) if slopes is None else slopes)

    def _place(self, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Piece, place u in [0, 1] and length of the piece for any shape of tau."""
        knots = self.knots.to(tau)
        piece = (torch.bucketize(tau, knots, right=True) - 1).clamp(0, len(knots) - 2)
        length = knots[piece + 1] - knots[piece]
        return piece, ((tau - knots[piece]) / length).clamp(0.0, 1.0), length

    def position(self, tau: Tensor) -> Tensor:
        """`(...)` tau to `(..., r)`."""
        piece, u, length = self._place(tau)
        u, length = u[..., None].to(self.values), length[..., None].to(self.values)
        rise = u * u * (3 - 2 * u)
        start, end = self.slopes[piece] * length, self.slopes[piece + 1] * length
        bend = u * (1 - u) * ((1 - u) * start - u * end)
        return self.values[piece] * (1 - rise) + self.values[piece + 1] * rise + bend


class DrivenField(PathField):
    """A driven field in the coordinates u = y - X, where du/dtau = f(u + X(tau), tau).

    This substitution (Doss, Ann. Inst. H. Poincare B 13, 1977; Sussmann, Ann. Probab. 6, 1978) has the same solution,
    and the solver never sees the derivative of X: rough controls cost no small steps.
    """

    def __init__(self, field: PathField, controls: list[ControlPath]) -> None:
        super().__init__()
        self.field = field
        self.controls = nn.ModuleList(controls).to(field.edges.device)
        self.register_buffer("edges", field.edges)
        self.register_buffer("starts", field.starts)
        self.register_buffer("ends", field.ends)

    @property
    def collocation_steps(self) -> int:
        """As in the base class: of the field inside."""
        return self.field.collocation_steps

    def control_at(self, tau: Tensor) -> Tensor:
        """`(...)` to `(..., r)`: X, the sum of the controls."""
        return torch.stack([control.position(tau) for control in self.controls]).sum(0)  # type: ignore[operator]

    def _control(self, windows: Tensor, x: Tensor) -> Tensor:
        """X at `(V, M)` local times: `(V, M, r)`."""
        low, high = self.edges[windows][:, None], self.edges[windows + 1][:, None]
        return self.control_at(low + (x.to(low) + 1) / 2 * (high - low))

    def keep_precision(self, edges: Tensor, starts: Tensor, ends: Tensor) -> None:
        """As in the base class, for the field inside, too."""
        super().keep_precision(edges, starts, ends)
        self.field.edges = edges

    def bind(self, windows: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """As in the base class."""
        slopes = self.field.bind(windows)
        return lambda x, u: slopes(x, u + self._control(windows, x).to(u))

    def at_times(self, windows: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
        """As in the base class; X is computed once."""
        slopes, control = self.field.at_times(windows, x), self._control(windows, x)
        return lambda u: slopes(u + control.to(u))

    def in_windows(self, windows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """As in the base class."""
        return self.bind(windows)(x, y)
