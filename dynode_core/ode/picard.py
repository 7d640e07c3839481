"""Solving the whole clip at once: Gauss collocation of order 6 by fixed-point (Picard) iteration.

Every node of every step of every window is evaluated in one batch; the running sum of the increments gives the next
guess. As the fitted field hardly depends on the state, two iterations usually suffice, whatever the length of the clip.
(Collocation: Hairer, Norsett & Wanner, II.7; its use over the whole path, and the error estimate: ours.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
REFINEMENTS = 3
"""Times that the number of steps may double until the error estimate is met."""
_TO_MONOMIALS = np.linalg.inv(np.vander(GAUSS_NODES, 3, increasing=True))


def _comparison_weights() -> np.ndarray:
    """`(6,)` weights that integrate quintics over two steps from their 6 nodes, less those of Gauss: an error gauge."""
    nodes = np.concatenate([GAUSS_NODES, GAUSS_NODES + 1])
    exact = 2.0 ** np.arange(1, 7) / np.arange(1, 7)
    quintic = np.linalg.solve(np.vander(nodes, 6, increasing=True).T, exact)
    return quintic - np.concatenate([GAUSS_WEIGHTS, GAUSS_WEIGHTS])


_COMPARISON = _comparison_weights()


def _integrals(fraction: Tensor) -> Tensor:
    """`(...)` fractions of a step to `(..., 3)`: integrals of the Lagrange polynomials of the nodes from 0."""
    powers = torch.stack([fraction, fraction**2 / 2, fraction**3 / 3], dim=-1)
    return powers @ torch.as_tensor(_TO_MONOMIALS).to(powers)


@dataclass(frozen=True)
class _Collocation:
    """A converged iteration. V windows, S steps, B rows."""

    nodes: Tensor
    """`(V, S, B, r)`: state at the beginning of each step."""
    slopes: Tensor
    """`(V, S, 3, B, r)`: derivative at the Gauss nodes times the step."""
    iterations: int

    def error(self) -> float:
        """Estimated error at the end of the path, rms over the axes, of the worst row."""
        pairs = self.slopes.unflatten(1, (-1, 2)).flatten(2, 3)
        weights = torch.as_tensor(_COMPARISON).to(pairs)
        local = torch.einsum("j,vpjbr->vpbr", weights, pairs).square().mean(-1)
        return float(local.sum((0, 1)).sqrt().max())


def _iterate(field: PathField, leg: Leg, y0: Tensor, offset: Tensor, steps: int) -> _Collocation | None:
    """Picard iteration on `steps` equal steps per window; None if it does not converge."""
    count, (batch, rank) = len(leg.windows), y0.shape
    nodes, weights = (torch.as_tensor(values).to(y0) for values in (GAUSS_NODES, GAUSS_WEIGHTS))
    sizes = ((leg.x1 - leg.x0) / steps).to(y0)
    grid = leg.x0.to(y0)[:, None] + sizes[:, None] * torch.arange(steps, device=y0.device)
    x = (grid[..., None] + sizes[:, None, None] * nodes).reshape(count, -1)
    times = x[:, :, None].expand(-1, -1, batch).reshape(count, -1)
    slopes_of = field.at_times(leg.windows, times)
    jumps = leg.jumps.to(y0)[:, None].cumsum(0)
    y = (leg.guesses.to(y0)[:, None] + offset)[:, None].expand(-1, steps * 3, -1, -1)
    inner = _integrals(nodes)
    for iteration in range(1, MAX_ITERATIONS + 1):
        slopes = slopes_of(y.reshape(count, -1, rank))
        slopes = slopes.view(count, steps, 3, batch, rank) * sizes[:, None, None, None, None]
        gains = torch.einsum("j,vsjbr->vsbr", weights, slopes).cumsum(1)
        zero = torch.zeros_like(gains[:1, -1])
        entry = y0 + jumps + torch.cat([zero, gains[:-1, -1].cumsum(0)])
        begin = entry[:, None] + torch.cat([torch.zeros_like(gains[:, :1]), gains[:, :-1]], dim=1)
        new = (begin[:, :, None] + torch.einsum("ij,vsjbr->vsibr", inner, slopes)).reshape(count, -1, batch, rank)
        defect = float((new - y).abs().max())
        y = new
        if defect < DEFECT:
            return _Collocation(begin, slopes, iteration)
        if not math.isfinite(defect):
            break
    return None


def solve_leg_in_parallel(
    field: PathField, leg: Leg, y0: Tensor, tau: Tensor, *, rtol: float, atol: float, offset: Tensor | None = None
) -> Solution | None:
    """Solve one leg and read it at `(N,)` float64 tau that lie on it.

    Args:
        y0: `(B, r)` state where the leg begins.
        rtol: With atol, the estimated error at the end may be 10 (rtol + atol), in units of y; else steps double.
        offset: `(B, r)` distance of y0 from the observed path.
    Returns:
        The solution, or None where the iteration does not converge or the error stays too large.
    """
    offset = y0 - leg.guesses[0].to(y0) if offset is None else offset
    steps = field.collocation_steps
    spent = 0
    for _ in range(REFINEMENTS + 1):
        found = _iterate(field, leg, y0, offset, steps)
        if found is None:
            return None
        spent += found.iterations
        if found.error() <= 10 * (rtol + atol):
            states = _read(field, leg, tau, found)
            accepted = len(leg.windows) * steps * len(y0)
            return Solution(states, spent, Status.SUCCESS, spent, accepted, sweeps=found.iterations)
        steps *= 2
    return None


def _read(field: PathField, leg: Leg, tau: Tensor, found: _Collocation) -> Tensor:
    """States `(B, N, r)` of the collocation polynomial at `(N,)` tau."""
    steps = found.nodes.shape[1]
    windows, x = local_time(field, tau)
    where = torch.zeros(int(leg.windows.max()) + 1, dtype=torch.int64, device=x.device)
    where[leg.windows] = torch.arange(len(leg.windows), device=x.device)
    slot = where[windows]
    span = leg.x1 - leg.x0[slot]
    position = torch.where(span == 0, torch.zeros_like(x), (x - leg.x0[slot]) / span) * steps
    step = position.floor().clamp(0, steps - 1).to(torch.int64)
    shares = _integrals((position - step).to(found.nodes))
    read = found.nodes[slot, step] + torch.einsum("nj,njbr->nbr", shares, found.slopes[slot, step])
    return read.transpose(0, 1)
