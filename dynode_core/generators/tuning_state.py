"""Weights on their way, with the moments of their optimiser, as tensors: what is restored goes on bit by bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_WEIGHT, _MOMENTS = "weight", ("step", "exp_avg", "exp_avg_sq")


def pack_weights(tuned: Mapping[str, nn.Parameter], optimiser: torch.optim.Adam | None) -> dict[str, Tensor]:
    """Copies on the CPU of the weights and, with an optimiser, of the moments of those that it has moved."""
    found = {f"{_WEIGHT}.{name}": parameter.detach() for name, parameter in tuned.items()}
    for name, parameter in tuned.items():
        moments = {} if optimiser is None else optimiser.state.get(parameter, {})
        found |= {f"{key}.{name}": moments[key] for key in _MOMENTS if key in moments}
    return {name: value.detach().cpu().clone() for name, value in found.items()}


def holds_weights(saved: Mapping[str, Tensor], tuned: Mapping[str, nn.Parameter]) -> bool:
    """Whether `saved` has all of `tuned`, in their shapes."""
    return all(
        (value := saved.get(f"{_WEIGHT}.{name}")) is not None and value.shape == parameter.shape
        for name, parameter in tuned.items()
    )


@torch.no_grad()
def restore_weights(
    saved: Mapping[str, Tensor], tuned: Mapping[str, nn.Parameter], optimiser: torch.optim.Adam | None
) -> None:
    """Take over what `pack_weights` gave."""
    for name, parameter in tuned.items():
        parameter.copy_(saved[f"{_WEIGHT}.{name}"])
        if optimiser is not None and all(f"{key}.{name}" in saved for key in _MOMENTS):
            step, *moments = (saved[f"{key}.{name}"].clone() for key in _MOMENTS)
            on_device = {key: value.to(parameter.device) for key, value in zip(_MOMENTS[1:], moments, strict=True)}
            optimiser.state[parameter] = {"step": step, **on_device}
