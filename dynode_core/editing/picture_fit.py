"""One change of the code that does the same to several frames of a clip (ours).

A change found on one frame alone also takes what happens to help there: a moustache painted over a closed mouth comes
back as dark lips, and when the mouth opens it is black. So the change of the picture is carried to a few other frames
with the mesh of the face, and one offset of the code has to do there what it does in the first one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..generators.protocol import Generator
from ..generators.proxy import local_proxies
from ..inversion.code_space import CodeSpace
from ..inversion.losses import LossWeights, code_penalty, reconstruction_loss
from ..inversion.optimise import Stage
from ..inversion.perceptual import PerceptualDistance
from ..inversion.schedule import warm_up_and_cosine

_WARM_UP_STEPS = 4


@dataclass(frozen=True)
class FitFrame:
    """One frame, what it should look like after the edit, and where that matters."""

    base: Tensor
    """`(1, L, D)` its code before the edit."""
    target: Tensor
    """`(1, 3, S, S)` in [-1, 1]."""
    emphasis: Tensor
    """`(1, 1, S, S)` with mean 1."""


def fit_offset(
    generator: Generator,
    frames: Sequence[FitFrame],
    perceptual: PerceptualDistance | None,
    space: CodeSpace,
    stages: Sequence[Stage],
    weights: LossWeights,
    *,
    rows: Tensor | None = None,
    on_step: Callable[[int, Tensor], None],
) -> Tensor:
    """The offset that, added to the codes of all frames, brings them closest to their targets.

    Args:
        frames: the first one counts as much as all others together.
        stages: in order; their sizes are at most that of the targets.
        rows: `(L,)` 1 for rows of the code that may change, 0 for the others; None: all.
        on_step: called after each step with the number of the frame and its picture `(1, 3, S, S)`; may raise.
    Returns:
        `(1, L, D)`.
    """
    bases = torch.cat([frame.base for frame in frames])
    proxies = local_proxies(generator, bases, sorted({stage.size for stage in stages if not stage.exact}))
    coordinates = torch.zeros_like(space.encode(bases[:1])).requires_grad_(True)
    share = torch.ones(bases.shape[1], 1) if rows is None else rows[:, None]
    share = share.to(bases)
    for stage in stages:
        exact = functools.partial(generator.synthesize, size=stage.size)
        render = exact if stage.exact else proxies[stage.size]
        losses = [reconstruction_loss(f.target, f.emphasis, stage.size, perceptual, weights) for f in frames]
        optimiser = torch.optim.Adam([coordinates], lr=stage.learning_rate)
        for step in range(stage.steps):
            k = _frame_of(step, len(frames))
            chosen = coordinates * share
            images = render(frames[k].base + offset_of(space, chosen))
            loss = losses[k](images)[0] + code_penalty(chosen, weights)[0]
            for group in optimiser.param_groups:
                group["lr"] = stage.learning_rate * warm_up_and_cosine(step, stage.steps, _WARM_UP_STEPS)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            on_step(k, images.detach())
    return offset_of(space, coordinates * share).detach()


def offset_of(space: CodeSpace, coordinates: Tensor) -> Tensor:
    """`(..., D)` coordinates of an offset to the offset itself."""
    return space.decode(coordinates) - space.w_avg


def _frame_of(step: int, count: int) -> int:
    """The first frame in every second step, the others in turn."""
    return 0 if count == 1 or step % 2 == 0 else 1 + (step // 2) % (count - 1)
