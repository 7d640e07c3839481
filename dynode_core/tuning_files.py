"""Tuned weights inside the files of codes, edits, trajectories and samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .tuned_weights import Tuning, Weights

_FIRST, _FROM_S = "tuning.", "tuning_from_s"


def pack_tuning(tuning: Tuning | None) -> dict[str, Tensor]:
    """Tensors to be written beside others: `tuning.NAME`, and of later shots `tuning@1.NAME` ... and their times."""
    if tuning is None:
        return {}
    tensors = {
        f"{_prefix(place)}{name}": weight
        for place, weights in enumerate(tuning.sets)
        for name, weight in weights.items()
    }
    return tensors | ({_FROM_S: torch.tensor(tuning.from_s, dtype=torch.float64)} if tuning.from_s else {})


def unpack_tuning(tensors: Mapping[str, Tensor]) -> Tuning | None:
    """What `pack_tuning` wrote among `tensors`, or None."""
    from_s = tuple(tensors[_FROM_S].tolist()) if _FROM_S in tensors else ()
    first, *later = (_of_prefix(tensors, _prefix(place)) for place in range(1 + len(from_s)))
    return Tuning(first, tuple(later), from_s) if first or later else None


def _prefix(place: int) -> str:
    return f"tuning@{place}." if place else _FIRST


def _of_prefix(tensors: Mapping[str, Tensor], prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
