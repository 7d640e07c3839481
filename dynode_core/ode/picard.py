"""Solving the whole clip at once: Gauss collocation of order 6 by fixed-point (Picard) iteration.

Every node of every step of every window is evaluated in one batch; the running sum of the increments gives the next
guess. As the fitted field hardly depends on the state, two iterations usually suffice, whatever the length of the clip.
(Collocation: Hairer, Norsett & Wanner, II.7; its use over the whole path: ours.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .closed_form import GAUSS_NODES, GAUSS_WEIGHTS
from .solution import Solution, Status
from .vector_field import PathField
from .windows import Leg, local_time

MAX_ITERATIONS = 8
DEFECT = 1e-5
"""Largest change of a state in the last iteration, in units of y, that counts as converged."""
STEPS_PER_WINDOW = 64
_VANDERMONDE = np.linalg.inv(np.vander(GAUSS_NODES, 3, increasing=True))


def _integrals(fraction: Tensor) -> Tensor:
    """`(...)` fractions of a step to `(..., 3)`: integrals of the Lagrange polynomials of the nodes from 0."""
    powers = torch.stack([fraction, fraction**2 / 2, fraction**3 / 3], dim=-1)
    return powers @ torch.as_tensor(_VANDERMONDE).to(powers)


def solve_leg_in_parallel(
    field: PathField, leg: Leg, y0: Tensor, tau: Tensor, *, offset: Tensor | None = None, steps: int = STEPS_PER_WINDOW
) -> Solution | None:
    """Solve one leg and read it at `(N,)` float64 tau that lie on it.

    Args:
        y0: `(B, r)` state where the leg begins.
        offset: `(B, r)` distance of y0 from the observed path.
        steps: Equal steps per window.
    Returns:
        The solution, or None where the iteration did not converge and another solver is to be used.
    """
    count, (batch, rank) = len(leg.windows), y0.shape
    at = lambda values: torch.as_tensor(values).to(y0)  # noqa: E731
    sizes = ((leg.x1 - leg.x0) / steps).to(y0)
    grid = leg.x0.to(y0)[:, None] + sizes[:, None] * torch.arange(steps, device=y0.device)
    x = (grid[..., None] + sizes[:, None, None] * at(GAUSS_NODES)).reshape(count, -1)
    times = x[:, :, None].expand(-1, -1, batch).reshape(count, -1)
    offset = y0 - leg.guesses[0].to(y0) if offset is None else offset
    starts = leg.guesses.to(y0)[:, None] + offset
    y = starts[:, None].expand(-1, steps * 3, -1, -1)
    inner = _integrals(at(GAUSS_NODES))
    features = field.time_features(times) if hasattr(field, "time_features") else None
    for iteration in range(1, MAX_ITERATIONS + 1):
        flat = y.reshape(count, -1, rank)
        slopes = (
            field.in_windows(leg.windows, times, flat)
            if features is None
            else field.from_features(leg.windows, features, flat)
        )
        slopes = slopes.view(count, steps, 3, batch, rank) * sizes[:, None, None, None, None]
        gains = torch.einsum("j,wsjbr->wsbr", at(GAUSS_WEIGHTS), slopes).cumsum(1)
        entry = y0 + leg.jumps.to(y0)[:, None].cumsum(0)
        entry = entry + torch.cat([torch.zeros_like(gains[:1, -1]), gains[:-1, -1].cumsum(0)])
        nodes = entry[:, None] + torch.cat([torch.zeros_like(gains[:, :1]), gains[:, :-1]], dim=1)
        new = (nodes[:, :, None] + torch.einsum("ij,wsjbr->wsibr", inner, slopes)).reshape(count, -1, batch, rank)
        defect = float((new - y).abs().max())
        y = new
        if not np.isfinite(defect):
            return None
        if defect < DEFECT:
            break
    else:
        return None
    return Solution(
        _read(field, leg, tau, nodes, slopes), iteration, Status.SUCCESS, iteration, count * steps * batch, iteration
    )


def _read(field: PathField, leg: Leg, tau: Tensor, nodes: Tensor, slopes: Tensor) -> Tensor:
    """States `(B, N, r)` of the collocation polynomial at `(N,)` tau."""
    steps = nodes.shape[1]
    windows, x = local_time(field, tau)
    where = torch.zeros(int(leg.windows.max()) + 1, dtype=torch.int64, device=x.device)
    where[leg.windows] = torch.arange(len(leg.windows), device=x.device)
    slot = where[windows]
    span = leg.x1 - leg.x0[slot]
    position = torch.where(span == 0, torch.zeros_like(x), (x - leg.x0[slot]) / span) * steps
    step = position.floor().clamp(0, steps - 1).to(torch.int64)
    shares = _integrals((position - step).to(nodes))
    return (nodes[slot, step] + torch.einsum("nj,njbr->nbr", shares, slopes[slot, step])).transpose(0, 1)
