"""Find the W+ code of one picture by gradient descent, coarse to fine."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..generators.protocol import Generator
from ..generators.proxy import local_proxies
from .code_space import CodeSpace
from .identity_loss import IdentityLoss
from .losses import LossWeights, ReconstructionLoss, code_penalty, reconstruction_loss
from .perceptual import PerceptualDistance
from .schedule import warm_up_and_cosine

_WARM_UP_STEPS = 4


@dataclass(frozen=True)
class Stage:
    """So many Adam steps at one picture size."""

    size: int
    steps: int
    learning_rate: float
    """In standard deviations of the generator's codes."""
    exact: bool = False
    """Through the whole generator instead of its local proxy: the only way to reach the rows of the last layers."""


@dataclass(frozen=True)
class OptimisedCode:
    """The best code seen, its loss at the last stage, and how many steps it took."""

    w_plus: Tensor
    """`(1, L, D)` float32."""
    loss: float
    steps: int


StepCallback = Callable[[Tensor], None]
"""Receives the reconstruction `(1, 3, S, S)` after each step; may raise to cancel."""


@dataclass(frozen=True)
class Problem:
    """A picture to be reconstructed, and with what."""

    generator: Generator
    target: Tensor
    """`(1, 3, S, S)` in [-1, 1], S at least the largest stage."""
    emphasis: Tensor
    """`(1, 1, S, S)` with mean 1."""
    perceptual: PerceptualDistance | None
    weights: LossWeights
    space: CodeSpace
    identity: IdentityLoss | None = None
    """Against the same picture."""
    detail_px: int | None = None
    """Side of the picture in its source: finer detail than that is not asked for; None means every pixel."""
    anchor: Tensor | None = None
    """`(1, L, D)`: stay close to this code."""

    def penalty(self, coordinates: Tensor) -> Tensor:
        """What the code itself costs, a scalar."""
        anchor = None if self.anchor is None else self.space.encode(self.anchor)
        return code_penalty(coordinates, self.weights, anchor)[0]

    def loss_at(self, size: int) -> ReconstructionLoss:
        """The loss against the target at `size` pixels."""
        return reconstruction_loss(
            self.target, self.emphasis, size, self.perceptual, self.weights, self.identity, self.detail_px
        )


def optimise_code(
    problem: Problem, start: Tensor, stages: Sequence[Stage], *, loss_target: float, on_step: StepCallback
) -> OptimisedCode:
    """Descend from a starting code.

    Args:
        start: `(1, L, D)` starting code.
        stages: in order; each starts from the best code of the one before.
        loss_target: the last stage ends early once its loss (without penalties) is at most this.
    """
    sizes = sorted({stage.size for stage in stages if not stage.exact})
    proxies = local_proxies(problem.generator, start, sizes)
    w_plus, steps, loss = start, 0, math.inf
    for stage in stages:
        exact = functools.partial(problem.generator.synthesize, size=stage.size)
        render = exact if stage.exact else proxies[stage.size]
        loss_fn = problem.loss_at(stage.size)
        target = loss_target if stage is stages[-1] else 0.0
        w_plus, loss, taken = _descend(problem, w_plus, stage, render, loss_fn, target, on_step)
        steps += taken
    return OptimisedCode(w_plus, loss, steps)


def _descend(
    problem: Problem,
    start: Tensor,
    stage: Stage,
    render: Callable[[Tensor], Tensor],
    loss_fn: ReconstructionLoss,
    loss_target: float,
    on_step: StepCallback,
) -> tuple[Tensor, float, int]:
    coordinates = problem.space.encode(start).detach().requires_grad_(True)
    optimiser = torch.optim.Adam([coordinates], lr=stage.learning_rate)
    best, best_total, best_loss = start.detach(), math.inf, math.inf
    for step in range(stage.steps + 1):
        w_plus = problem.space.decode(coordinates)
        images = render(w_plus)
        loss = loss_fn(images)[0]
        total = loss + problem.penalty(coordinates)
        if total.item() < best_total:
            best, best_total, best_loss = w_plus.detach().clone(), total.item(), loss.item()
        on_step(images.detach())
        if best_loss <= loss_target or step == stage.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * warm_up_and_cosine(step, stage.steps, _WARM_UP_STEPS)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    return best, best_loss, step
