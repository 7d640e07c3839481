"""Weights on their way, with the moments of their optimiser, as tensors: what is restored goes on bit by bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_WEIGHT, _MOMENTS = "weight", ("step", "exp_avg", "exp_avg_sq")


def pack_weights(tuned: Mapping[str, nn.Parameter], optimiser: torch.optim.Adam | None) -> dict[str, Tensor]:
    """Copies of the weights and, if an optimiser that has stepped moves them, of its moments: on the CPU."""
    found = {f"{_WEIGHT}.{name}": parameter.detach() for name, parameter in tuned.items()}
    if optimiser is not None:
        found |= {
            f"{key}.{name}": optimiser.state[parameter][key] for name, parameter in tuned.items() for key in _MOMENTS
        }
    return {name: value.detach().cpu().clone() for name, value in found.items()}


def packed_names(tuned: Mapping[str, nn.Parameter], optimiser: torch.optim.Adam | None) -> set[str]:
    """Names of the tensors that `pack_weights` gives."""
    kinds = (_WEIGHT, *(_MOMENTS if optimiser is not None else ()))
    return {f"{kind}.{name}" for kind in kinds for name in tuned}


@torch.no_grad()
def restore_weights(
    saved: Mapping[str, Tensor], tuned: Mapping[str, nn.Parameter], optimiser: torch.optim.Adam | None
) -> None:
    """Take over what `pack_weights` gave."""
    for name, parameter in tuned.items():
        parameter.copy_(saved[f"{_WEIGHT}.{name}"])
        if optimiser is not None:
            step, *moments = (saved[f"{key}.{name}"].clone() for key in _MOMENTS)
            on_device = {key: value.to(parameter.device) for key, value in zip(_MOMENTS[1:], moments, strict=True)}
            optimiser.state[parameter] = {"step": step, **on_device}
