"""Checking a fitted field by solving it: does it follow the path, and does it carry an edit?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .path import solve_path
from .solution import Status
from .vector_field import WindowedField

NUM_PROBES = 8
PROBE_SIZE = 0.3
"""Standard deviation of a probe per axis, in units of y: about the size of a strong edit."""
DRIFT_LIMIT = 1e-3
GAIN_LIMIT = 0.02
LOOSE_GAIN_LIMIT = 0.5
EXACT_JACOBIAN = 1e-4
"""From this Jacobian weight up an edit is promised to be carried exactly."""
RETRY_FACTOR, MAX_TRIES = 100.0, 3


@dataclass(frozen=True)
class Check:
    """What one solve of the path with probes showed."""

    drift: float
    """||solved - reference|| / ||reference|| over the observations."""
    gain_low: float
    gain_high: float
    """Range of ||change of the solved path|| / ||change of the first state|| over probes and observations."""
    nfe: int
    status: Status
    solved: np.ndarray
    """`(n, r)` float64: the solved path."""

    def follows(self) -> bool:
        """Whether the solution stays on the path."""
        return self.status is Status.SUCCESS and self.drift <= DRIFT_LIMIT

    def carries(self, jacobian_weight: float) -> bool:
        """Whether edits keep their size within the limit that goes with the Jacobian weight."""
        limit = GAIN_LIMIT if jacobian_weight >= EXACT_JACOBIAN else LOOSE_GAIN_LIMIT
        return self.gain_low >= 1 - limit and self.gain_high <= 1 + limit

    def passes(self, jacobian_weight: float) -> bool:
        """Both."""
        return self.follows() and self.carries(jacobian_weight)


@dataclass(frozen=True)
class CertifiedField:
    """A field with its check and the weight and number of tries that led to it."""

    field: WindowedField
    check: Check
    jacobian_weight: float
    subdivision: int
    tries: int


def check_field(
    field: WindowedField, tau: np.ndarray, reference: Tensor, *, rtol: float, atol: float, seed: int = 0
) -> Check:
    """Solve the path and `NUM_PROBES` disturbed copies in one batch and compare.

    Args:
        tau: `(n,)` times of the comparison, the first one 0.
        reference: `(n, r)` float64 reference states there.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    probes = torch.randn(NUM_PROBES, reference.shape[1], generator=generator, dtype=torch.float64) * PROBE_SIZE
    y0 = torch.cat([reference[:1], reference[:1] + probes])
    solution = solve_path(field, y0, tau, method="parallel", rtol=rtol, atol=atol)
    states = solution.y.double().cpu()
    if solution.status is not Status.SUCCESS:
        return Check(float("inf"), 0.0, float("inf"), solution.nfe, solution.status, states[0].numpy())
    drift = float((states[0] - reference).norm() / reference.norm().clamp(min=1e-12))
    gains = (states[1:] - states[:1]).norm(dim=-1) / probes.norm(dim=-1, keepdim=True)
    return Check(drift, float(gains.min()), float(gains.max()), solution.nfe, solution.status, states[0].numpy())


def certify(
    fit: Callable[[float, int], WindowedField],
    tau: np.ndarray,
    reference: Tensor,
    jacobian_weight: float,
    *,
    rtol: float,
    atol: float,
    seed: int = 0,
) -> CertifiedField:
    """Fit, check, and fit again while the check fails, at most three times.

    Where edits change their size the Jacobian weight grows a hundredfold; where the path is missed the basis grows.

    Args:
        fit: Takes the Jacobian weight and the subdivision of gaps, which is 1 to begin with.
    Returns:
        The first field that passes, or the one with the smallest drift if none does.
    """
    tried: list[CertifiedField] = []
    subdivision = 1
    while len(tried) < MAX_TRIES:
        field = fit(jacobian_weight, subdivision)
        check = check_field(field, tau, reference, rtol=rtol, atol=atol, seed=seed)
        tried.append(CertifiedField(field, check, jacobian_weight, subdivision, len(tried) + 1))
        if check.passes(jacobian_weight):
            return tried[-1]
        if not check.follows():
            subdivision *= 2
        if not check.carries(jacobian_weight) or check.status is not Status.SUCCESS:
            jacobian_weight *= RETRY_FACTOR
    best = min(tried, key=lambda candidate: candidate.check.drift)
    return dataclasses.replace(best, tries=MAX_TRIES)
