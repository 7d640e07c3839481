"""All keyframes together: refine their codes, and tune the generator to the person (ours, after PTI and STIT).

Keyframes that were inverted one after the other drift apart, and a small generator can't show every person with codes
alone. Here every step takes one keyframe (in shuffled rounds), moves its code and, in a stage that tunes, the weights
that all share: what the frames have in common goes into the weights, what differs stays in the codes. Measured on 22
keyframes of a clip with strong expressions (MobileFaceNet cosine / ST-LPIPS / error of mediapipe's eye closing, 8
keyframes): before .45 / .029 / .075; codes only .58 / .030 / .072; codes and weights with the identity loss
.83 / .019 / .042. At frames between the keyframes the figures are the same within .01.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..generators.protocol import Generator
from ..generators.proxy import local_proxies
from ..generators.tuning import tunable_copy
from ..types import Tuning
from .code_space import CodeSpace
from .losses import ReconstructionLoss

_WARM_UP_STEPS = 10
_CODE_BETAS = (0.7, 0.9)
"""Short memories: a code is visited few times."""
_WEIGHT_BETAS = (0.9, 0.99)
_READ_OUT_KEYFRAMES = 3


@dataclass(frozen=True)
class JointStage:
    """So many visits to each keyframe at one picture size."""

    size: int
    visits: int
    code_rate: float
    """Adam's learning rate of the codes, in standard deviations of the generator's codes."""
    weight_rate: float = 0.0
    """Adam's learning rate of the weights, in standard deviations of each tensor; 0 leaves them as they are."""


@dataclass(frozen=True)
class JointResult:
    """Codes of all keyframes and the weights that changed."""

    w_plus: Tensor
    """`(K, L, D)` float32 on the generator's device."""
    tuning: Tuning | None
    losses: tuple[float, ...]
    """Of the last visit to each keyframe."""


LossOf = Callable[[int, int], ReconstructionLoss]
"""(keyframe, size) to its loss."""
StepCallback = Callable[[int, Tensor], None]
"""Receives the keyframe and its reconstruction `(1, 3, S, S)`; may raise to cancel."""


def refine_together(
    generator: Generator,
    w_plus: Tensor,
    stage: JointStage,
    loss_of: LossOf,
    space: CodeSpace,
    *,
    tuning: Tuning | None = None,
    seed: int = 0,
    on_step: StepCallback,
) -> JointResult:
    """One stage of joint refinement.

    Args:
        generator: not changed; a copy is tuned.
        w_plus: `(K, L, D)` codes to start from.
        stage: size, visits and rates.
        loss_of: the loss of a keyframe at a size.
        tuning: the result of an earlier stage, to go on from.
        seed: of the order of the visits.
    """
    working, tuned = tunable_copy(generator, tuning) if stage.weight_rate or tuning else (generator, {})
    visits = _order(len(w_plus), stage.visits, seed)
    picked = w_plus[[i * (len(w_plus) - 1) // (_READ_OUT_KEYFRAMES - 1) for i in range(_READ_OUT_KEYFRAMES)]]
    render = local_proxies(working, picked, [stage.size])[stage.size]
    codes = _CodeAdam(space.encode(w_plus), stage.code_rate)
    optimiser = _weight_adam(tuned) if stage.weight_rate else None
    losses = [math.nan] * len(w_plus)
    for step, k in enumerate(visits):
        coordinates = codes.of(k)
        images = render(space.decode(coordinates))
        loss = loss_of(k, stage.size)(images)[0]
        losses[k] = loss.item()
        on_step(k, images.detach())
        scale = _schedule(step, len(visits))
        if optimiser is not None:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = stage.weight_rate * scale * group["deviation"]
        loss.backward()
        if optimiser is not None:
            optimiser.step()
        codes.step(k, coordinates.grad, scale)
    found = {name: parameter.detach().float().cpu().clone() for name, parameter in tuned.items()}
    return JointResult(space.decode(codes.values), Tuning(found) if found else None, tuple(losses))


def _order(count: int, rounds: int, seed: int) -> list[int]:
    """Every keyframe once per round, in an order of its own each time."""
    shuffle = random.Random(seed)
    return [k for _ in range(rounds) for k in shuffle.sample(range(count), count)]


class _CodeAdam:
    """Adam whose moments belong to one keyframe each and move only when it is visited."""

    def __init__(self, coordinates: Tensor, rate: float) -> None:
        self.values = coordinates.detach().clone()
        self._rate = rate
        self._mean, self._square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self._counts = [0] * len(self.values)

    def of(self, k: int) -> Tensor:
        return self.values[k : k + 1].clone().requires_grad_(True)

    def step(self, k: int, gradient: Tensor | None, scale: float) -> None:
        if gradient is None or not self._rate:
            return
        first, second = _CODE_BETAS
        self._counts[k] += 1
        self._mean[k] = first * self._mean[k] + (1 - first) * gradient[0]
        self._square[k] = second * self._square[k] + (1 - second) * gradient[0].square()
        mean = self._mean[k] / (1 - first ** self._counts[k])
        square = self._square[k] / (1 - second ** self._counts[k])
        self.values[k] -= scale * self._rate * mean / (square.sqrt() + 1e-8)


def _weight_adam(tuned: dict[str, nn.Parameter]) -> torch.optim.Adam:
    groups = [
        {"params": [parameter], "lr": 0.0, "deviation": float(parameter.detach().std()) + 1e-6}
        for parameter in tuned.values()
    ]
    return torch.optim.Adam(groups, betas=_WEIGHT_BETAS)


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to 5 %."""
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
