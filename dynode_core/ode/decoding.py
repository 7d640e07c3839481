"""From solved states back to codes, in chunks or while they are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..code_stream import CodeStream
from ..types import LatentTrajectory
from .cuts import cut_positions
from .edit_limit import EditLimit
from .interpolation import blend_observations
from .later_edits import EditTimeline

_CHUNK = 256


@dataclass(frozen=True)
class BaseCodes:
    """The observed path: solved states with the faithful <-> smooth dial."""

    trajectory: LatentTrajectory
    states: Tensor
    """`(N, r)` solved states at the output times."""
    tau: np.ndarray
    """`(N,)` output times."""
    knots: np.ndarray
    """`(K,)` times of keyframes."""
    at_knots: Tensor | None
    """`(K, r)` solved states at keyframes; None leaves the solution as it is (faithful = 0)."""
    faithful: float

    def read(self, index: Tensor) -> Tensor:
        """`(n,)` positions to `(n, L, D)`: solution + faithful * (observed - solved at the keyframes)."""
        subspace, states = self.trajectory.subspace, self.states[index]
        if self.at_knots is None:
            return subspace.decode(states)
        cuts = cut_positions(self.trajectory.vector_field)  # type: ignore[arg-type]
        tau = self.tau[index.numpy()]
        solved = blend_observations(self.at_knots, self.knots, tau, cuts)
        observed = blend_observations(self.trajectory.w_plus, self.knots, tau, cuts)
        mean = subspace.mean.reshape(1, *subspace.code_shape)
        return subspace.decode(states - self.faithful * solved) + self.faithful * (observed - mean)


@dataclass(frozen=True)
class EditedCodes:
    """The edited path: the base codes plus what the states differ by, plus what no state expresses."""

    base: BaseCodes
    states: Tensor
    """`(N, r)`."""
    outside: Tensor
    """`(J, L, D)` parts of the edits outside the subspace."""
    timeline: EditTimeline | None
    """When each of them counts; None where there is one."""
    limit: EditLimit | None = None

    def read(self, index: Tensor) -> Tensor:
        """`(n,)` positions to `(n, L, D)`."""
        base = self.base
        change = base.trajectory.subspace.decode_change(self.states[index] - base.states[index])
        if self.timeline is None:
            change = change + self.outside[0]
        else:
            shares = self.timeline.weights(torch.from_numpy(base.tau[index.numpy()]))
            change = change + torch.einsum("nj,jld->nld", shares, self.outside)
        codes = base.read(index)
        return codes + (change if self.limit is None else self.limit.applied(codes, change))


def codes_of(part: BaseCodes | EditedCodes, *, stream: bool) -> Tensor | CodeStream:
    """All `(N, L, D)` codes, or a stream of them."""
    base = part.base if isinstance(part, EditedCodes) else part
    lazy = CodeStream(len(part.states), base.trajectory.subspace.code_shape, part.read)
    if stream:
        return lazy
    codes = torch.empty(lazy.shape)
    for low in range(0, len(codes), _CHUNK):
        codes[low : low + _CHUNK] = lazy[low : low + _CHUNK]
    return codes
