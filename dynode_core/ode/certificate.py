"""Checking a fitted field by solving it: does it follow the path, and does it carry an edit?"""

from __future__ import annotations

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

    def passes(self, jacobian_weight: float) -> bool:
        """Whether drift and gains are within the limits that go with the Jacobian weight."""
        limit = GAIN_LIMIT if jacobian_weight >= EXACT_JACOBIAN else LOOSE_GAIN_LIMIT
        carried = self.gain_low >= 1 - limit and self.gain_high <= 1 + limit
        return self.status is Status.SUCCESS and self.drift <= DRIFT_LIMIT and carried


@dataclass(frozen=True)
class CertifiedField:
    """A field with its check and the weight and number of tries that led to it."""

    field: WindowedField
    check: Check
    jacobian_weight: float
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
    fit: Callable[[float], WindowedField],
    tau: np.ndarray,
    reference: Tensor,
    jacobian_weight: float,
    *,
    rtol: float,
    atol: float,
    seed: int = 0,
) -> CertifiedField:
    """Fit with the Jacobian weight; if the check fails, with 100 times as much, at most three times.

    Returns:
        The first field that passes, or the one with the smallest drift if none does.
    """
    best: CertifiedField | None = None
    for tries in range(1, MAX_TRIES + 1):
        field = fit(jacobian_weight)
        check = check_field(field, tau, reference, rtol=rtol, atol=atol, seed=seed)
        candidate = CertifiedField(field, check, jacobian_weight, tries)
        if check.passes(jacobian_weight):
            return candidate
        if best is None or check.drift < best.check.drift:
            best = candidate
        jacobian_weight *= RETRY_FACTOR
    assert best is not None
    return CertifiedField(best.field, best.check, best.jacobian_weight, MAX_TRIES)
