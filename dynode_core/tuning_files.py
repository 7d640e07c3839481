"""Tuned weights inside the files of codes, edits, trajectories and samples."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .types import Tuning

_PREFIX = "tuning."


def pack_tuning(tuning: Tuning | None) -> dict[str, Tensor]:
    """Tensors to be written beside others."""
    return {} if tuning is None else {f"{_PREFIX}{name}": weight for name, weight in tuning.weights.items()}


def unpack_tuning(tensors: Mapping[str, Tensor]) -> Tuning | None:
    """What `pack_tuning` wrote among `tensors`, or None."""
    weights = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
    return Tuning(weights) if weights else None
