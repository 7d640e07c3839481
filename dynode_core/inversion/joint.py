"""All keyframes together: find their codes, and tune the generator to the person (ours, after PTI and STIT).

Keyframes that are inverted one after the other drift apart, and a small generator can't show every person with codes
alone. Here every step takes one keyframe (in shuffled rounds), moves its code and, in a stage that tunes, the weights
that all share: what the frames have in common goes into the weights, what differs stays in the codes. Measured on 22
keyframes of a clip with strong expressions (MobileFaceNet cosine / ST-LPIPS / error of mediapipe's eye closing, 8
keyframes): one after the other .45 / .029 / .075; then refined together, codes only .58 / .030 / .072; codes and
weights with the identity loss .83 / .019 / .042. At frames between the keyframes the figures are the same within .02.

A pull of the codes to the mean face matters for edits: what is common to the frames then goes into the weights, and the
codes stay where the generator knows faces. Measured on 20 keyframes of a man who screams and grins, with a pull of 0 /
.005 / .01 (and 7.5 / 7.5 / 6 in `expression_shift`): cosine .780 / .772 / .789, size of the codes .57 / .51 / .48
standard deviations, error of jawOpen .057 / .059 / .094. Without it a smile of strength 3 bent his eyes and cheeks
wherever his mouth was open; with .01 it does not. (Starts came from thumbnails then: `LossWeights` has today's pulls.)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..generators.protocol import Generator
from ..generators.proxy import exact_pictures, local_proxies
from ..generators.tuning import as_tuning, tunable_copy, weight_adam
from ..generators.tuning_state import holds_weights, pack_weights, restore_weights
from ..tuned_weights import Tuning
from .code_space import CodeSpace
from .losses import ReconstructionLoss
from .low_rank import low_rank
from .schedule import warm_up_and_cosine

_WARM_UP_STEPS = 10
_CODE_BETAS = (0.7, 0.9)
"""Short memories: a code is visited few times."""
_OWN_STATE = {"values", "mean", "square", "counts", "losses", "steps"}


@dataclass(frozen=True)
class JointStage:
    """So many visits to each keyframe at one picture size."""

    size: int
    visits: int
    code_rate: float
    """Adam's learning rate of the codes, in standard deviations of the generator's codes; 0 leaves them as they are."""
    weight_rate: float = 0.0
    """Adam's learning rate of the weights, in standard deviations of each tensor; 0 leaves them as they are."""
    least_steps: int = 0
    """Visits to all keyframes together while weights are tuned: these need as many for a short clip as for a long one,
    so that few keyframes are visited more often each. Measured on one second with a scream and a grin, 7 keyframes,
    tuned at 256 px in 3 / in 9 visits: identity .728 / .800, ST-LPIPS .053 / .030, mean squared error .0023 / .0013,
    error of jawOpen .02 / .07, editability .59 / .66. Tuned in 5 visits at 128 px as well: .821, .027, .0012, .08, .53;
    but with that, and from the calmest instead of the first keyframe, wide open mouths of 4 s of the same clip, 20
    keyframes, came back torn (error of jawOpen .144 instead of .094): both are left out there."""

    def visits_of(self, keyframes: int) -> int:
        """Visits that each of so many keyframes gets."""
        return max(self.visits, math.ceil(self.least_steps / keyframes)) if self.weight_rate else self.visits


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
StepCallback = Callable[[int, Tensor | None], None]
"""Receives the keyframe and its reconstruction `(1, 3, S, S)`, or None if it was left alone; may raise to cancel."""
RoundCallback = Callable[[dict[str, Tensor]], None]
"""Receives everything that is needed to go on from here."""


def refine_together(
    generator: Generator,
    w_plus: Tensor,
    stage: JointStage,
    loss_of: LossOf,
    space: CodeSpace,
    *,
    tuning: Tuning | None = None,
    loss_target: float = 0.0,
    penalty: Callable[[Tensor], Tensor] | None = None,
    offset_rank: int = 0,
    shots: np.ndarray | None = None,
    seed: int = 0,
    resume: Mapping[str, Tensor] | None = None,
    on_step: StepCallback,
    on_round: RoundCallback | None = None,
) -> JointResult:
    """One stage of joint refinement.

    Args:
        generator: not changed; a copy is tuned.
        w_plus: `(K, L, D)` codes to start from.
        stage: size, visits and rates.
        loss_of: the loss of a keyframe at a size.
        tuning: the result of an earlier stage, to go on from.
        loss_target: a keyframe whose loss is at most this is left alone from then on.
        penalty: of `(1, L, D)` coordinates in `space`, `(1,)`: added to the loss.
        offset_rank: after each round the offsets of the codes from their mean are reduced to their so many main
            directions (see `low_rank`); 0 leaves them free.
        shots: `(K,)` number of the shot of each keyframe, which has a mean and offsets of its own; None: one.
        seed: of the order of the visits.
        resume: what `on_round` received, to go on from there.
        on_step: called after every visit.
        on_round: receives the state after each round of visits.
    """
    working, tuned = tunable_copy(generator, tuning) if stage.weight_rate or tuning else (generator, {})
    visits = _order(len(w_plus), stage.visits, seed)
    renders = _Renders(working, w_plus, stage)
    codes, learns = _CodeAdam(space.encode(w_plus), stage.code_rate), bool(stage.code_rate or stage.weight_rate)
    optimiser = weight_adam(tuned, stage.weight_rate) if stage.weight_rate else None
    state = _State(codes, tuned, optimiser, [math.inf] * len(w_plus))
    losses = state.losses

    def visit(k: int, step: int) -> None:
        if losses[k] <= loss_target:
            on_step(k, None)
            return
        coordinates = codes.of(k)
        with torch.set_grad_enabled(learns):
            images = renders.of(k)(space.decode(coordinates))
            loss = loss_of(k, stage.size)(images)[0]
        losses[k] = loss.item()
        on_step(k, images.detach())
        if not learns:
            return
        scale = warm_up_and_cosine(step, len(visits), _WARM_UP_STEPS)
        if optimiser is not None:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = scale * group["rate"]
        if penalty is not None:
            loss = loss + penalty(coordinates)[0]
        loss.backward()
        if optimiser is not None:
            optimiser.step()
        codes.step(k, coordinates.grad, scale)

    for step in range(state.restore(resume), len(visits)):
        visit(visits[step], step)
        if (step + 1) % len(w_plus) == 0:
            if offset_rank:
                codes.values.copy_(low_rank(codes.values, offset_rank, shots))
            if on_round is not None:
                on_round(state.tensors(step + 1))
    return JointResult(space.decode(codes.values), as_tuning(tuned) if tuned else None, tuple(state.losses))


def _order(count: int, rounds: int, seed: int) -> list[int]:
    """Every keyframe once per round, in an order of its own each time."""
    shuffle = random.Random(seed)
    return [k for _ in range(rounds) for k in shuffle.sample(range(count), count)]


class _Renders:
    """How pictures are made: where weights are tuned, by the generator itself with cheaper gradients; where nothing is
    changed, by the generator; else by a stand-in of each keyframe, fitted when it is first visited at the code with
    which the stage began, so that a resumed stage has the same. One stand-in for all, fitted at three keyframes, drew
    wide open mouths wrong, and the codes and weights that suited it were torn when the generator drew them
    (`benchmarks/README.md`, stand-ins)."""

    def __init__(self, generator: Generator, w_plus: Tensor, stage: JointStage) -> None:
        self._generator, self._w_plus, self._size = generator, w_plus, stage.size
        self._exact = exact_pictures(generator, stage.size) if stage.weight_rate or not stage.code_rate else None
        self._fitted: dict[int, Callable[[Tensor], Tensor]] = {}

    def of(self, k: int) -> Callable[[Tensor], Tensor]:
        """From a code near that of keyframe `k` to its picture `(1, 3, size, size)`."""
        if self._exact is not None:
            return self._exact
        if k not in self._fitted:
            self._fitted[k] = local_proxies(self._generator, self._w_plus[k : k + 1], [self._size])[self._size]
        return self._fitted[k]


class _CodeAdam:
    """Adam whose moments belong to one keyframe each and move only when it is visited."""

    def __init__(self, coordinates: Tensor, rate: float) -> None:
        self.values = coordinates.detach().clone()
        self._rate = rate
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.counts = [0] * len(self.values)

    def of(self, k: int) -> Tensor:
        return self.values[k : k + 1].clone().requires_grad_(True)

    def step(self, k: int, gradient: Tensor | None, scale: float) -> None:
        if gradient is None or not self._rate:
            return
        first, second = _CODE_BETAS
        self.counts[k] += 1
        self.mean[k] = first * self.mean[k] + (1 - first) * gradient[0]
        self.square[k] = second * self.square[k] + (1 - second) * gradient[0].square()
        mean = self.mean[k] / (1 - first ** self.counts[k])
        square = self.square[k] / (1 - second ** self.counts[k])
        self.values[k] -= scale * self._rate * mean / (square.sqrt() + 1e-8)


class _State:
    """What changes during a stage, as tensors: what is restored goes on to the same result, bit by bit."""

    def __init__(
        self,
        codes: _CodeAdam,
        tuned: dict[str, nn.Parameter],
        optimiser: torch.optim.Adam | None,
        losses: list[float],
    ) -> None:
        self._codes, self._tuned, self._optimiser, self.losses = codes, tuned, optimiser, losses

    def tensors(self, steps: int) -> dict[str, Tensor]:
        """Copies of everything after `steps` steps."""
        codes = self._codes
        found = {"values": codes.values, "mean": codes.mean, "square": codes.square}
        found |= {"counts": torch.tensor(codes.counts), "losses": torch.tensor(self.losses, dtype=torch.float64)}
        copies = {name: value.detach().cpu().clone() for name, value in found.items()}
        return copies | pack_weights(self._tuned, self._optimiser) | {"steps": torch.tensor(steps)}

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Tensor] | None) -> int:
        """Take over what `tensors` gave, and say after how many steps that was; 0 if there is nothing that fits."""
        if saved is None or not saved.keys() >= _OWN_STATE or not holds_weights(saved, self._tuned):
            return 0
        if saved["values"].shape != self._codes.values.shape:
            return 0
        codes = self._codes
        for own, name in ((codes.values, "values"), (codes.mean, "mean"), (codes.square, "square")):
            own.copy_(saved[name])
        codes.counts[:], self.losses[:] = saved["counts"].tolist(), saved["losses"].tolist()
        restore_weights(saved, self._tuned, self._optimiser)
        return int(saved["steps"])
