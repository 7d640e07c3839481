"""A generator that was tuned to one person: pivotal tuning (Roich et al. 2021), as a change of a few weights (ours).

Only weights that shape the picture up to `TUNED_SIZE` pixels are changed: what comes after them adds texture that all
faces share, and tuning it on a few frames shows. Measured on 20 keyframes, MobileStyleGAN: up to 128 px identity .77
and a fine crosshatch on the skin at 1024 px; up to 64 px .79 and clean skin; the depthwise convolutions too: stripes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from ..tuned_weights import Tuning, Weights
from .protocol import Generator

TUNED_SIZE = 64
"""Feature maps of more pixels than this keep their weights."""

_BETAS = (0.9, 0.99)

G = TypeVar("G", bound=Generator)


@runtime_checkable
class Tunable(Protocol):
    """A generator that names the weights which may be tuned."""

    def tunable_parameters(self, size: int) -> dict[str, nn.Parameter]:
        """Weights that act on feature maps of at most `size` pixels, by name."""
        ...


def with_tuning(generator: G, tuning: Tuning | None) -> G:
    """`generator` with the tuned weights in place: a new module that shares all others; the given one is not changed.

    Args:
        tuning: one set of weights (see `tuned_weights.tuning_at`).
    Raises:
        ValueError: the weights are not of this generator, or there are several sets.
    """
    if tuning is None:
        return generator
    assert isinstance(generator, nn.Module)
    return _copy_sharing(generator, _fitting(generator, _only_set(tuning)))


def _fitting(generator: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """The tuned weights on the device of the generator, after checking that it has them."""
    parameters = dict(generator.named_parameters())
    for name, weight in weights.items():
        if name not in parameters or parameters[name].shape != weight.shape:
            raise ValueError(
                f"The codes come with tuned weights {name} {tuple(weight.shape)}, which this generator does not have. "
                "Connect the generator that the clip was inverted with."
            )
    return {name: weight.to(parameters[name]) for name, weight in weights.items()}


def tunable_copy(
    generator: G, tuning: Tuning | None = None, *, size: int = TUNED_SIZE
) -> tuple[G, dict[str, nn.Parameter]]:
    """A copy whose tunable weights are its own and require gradients, and these weights by name.

    Args:
        tuning: what was tuned before, one set of weights. Of it, weights that act on more than `size` pixels are in the
            copy and stay.
        size: weights that act on feature maps of at most so many pixels are tuned.
    Raises:
        TypeError: this kind of generator can't be tuned.
        ValueError: the earlier weights are not of this generator.
    """
    if not isinstance(generator, Tunable):
        raise TypeError(f"A {type(generator).__name__} can't be tuned: it does not name its tunable weights.")
    assert isinstance(generator, nn.Module)
    own = generator.tunable_parameters(size)
    tuned = {} if tuning is None else _fitting(generator, _only_set(tuning))
    copied = _copy_sharing(generator, {**{name: weight.detach() for name, weight in own.items()}, **tuned})
    assert isinstance(copied, Tunable)
    parameters = copied.tunable_parameters(size)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return copied, parameters


def as_tuning(tuned: Mapping[str, Tensor], before: Tuning | None = None) -> Tuning:
    """Tuned weights as they travel: float32 copies on the CPU, beside those of `before` that were not tuned again."""
    kept = {} if before is None else dict(_only_set(before))
    return Tuning(kept | {name: weight.detach().float().cpu().clone() for name, weight in tuned.items()})


def _only_set(tuning: Tuning) -> Weights:
    if tuning.later:
        raise ValueError(
            f"There are {len(tuning.sets)} sets of tuned weights, one for each shot, and one is used at a time: say "
            "for which time."
        )
    return tuning.weights


def weight_adam(tuned: dict[str, nn.Parameter], rate: float) -> torch.optim.Adam:
    """Adam that moves each weight in parts of its own spread (ours).

    Args:
        rate: Learning rate of a weight whose standard deviation is 1. Each group keeps its own as `rate`, for a
            schedule that sets `lr`.
    """
    rates = [rate * (float(weight.detach().std()) + 1e-6) for weight in tuned.values()]
    groups = [{"params": [weight], "lr": lr, "rate": lr} for weight, lr in zip(tuned.values(), rates, strict=True)]
    return torch.optim.Adam(groups, betas=_BETAS)


def _copy_sharing(module: nn.Module, own: dict[str, Tensor]) -> nn.Module:
    """The module tree anew, around the same tensors except those of `own`, which are cloned."""
    memo: dict[int, Tensor] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    parameters = dict(module.named_parameters())
    for name, value in own.items():
        memo[id(parameters[name])] = nn.Parameter(value.detach().clone(), requires_grad=False)
    with torch.inference_mode(False):
        return copy.deepcopy(module, memo)
