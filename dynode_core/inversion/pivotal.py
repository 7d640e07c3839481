"""Pivotal tuning: the codes stay, the generator comes to them (after Roich et al. 2021, PTI; one set of weights for all
frames as in Tzaban et al. 2022, STIT).

Beside reconstruction a locality term keeps the rest of the latent space where it is: half way between a pivot and
sampled faces, pictures should stay what they were. Weights are tuned in parts of their own spread, and only those that
`generators.tuning` names, so that the result is a small change that travels with the codes.
"""

from __future__ import annotations

import copy
import random
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_family, check_network_output, check_shape
from ..faces.crop import crop_clip
from ..generators.protocol import Generator
from ..generators.proxy import local_proxies
from ..generators.sampling import sample_codes
from ..generators.tuning import TUNED_SIZE, as_tuning, tunable_copy, weight_adam, with_tuning
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..spread import spread
from ..tensor_cache import content_key
from ..types import AlignedClip, InvertedClip, Tuning
from .emphasis import emphasis_map, has_mesh
from .identity_loss import IdentityLoss, IdentityNetwork
from .keyframes import crop_coordinates
from .perceptual import PerceptualDistance
from .schedule import warm_up_and_cosine

SIZE = 256
_WARM_UP_STEPS = 5
_PROXY_CODES = 3
_LOCALITY_CODES = 6
_PSI = 0.7
_SETTLED = 0.99
"""A round that leaves more than this share of the loss is the last one."""


@dataclass(frozen=True)
class PivotalSettings:
    """How `tune_to_pivots` works."""

    keyframes: int = 16
    """At most so many of the codes are pivots, evenly spread."""
    rounds: int = 15
    """Visits to each of them, at most."""
    rate: float = 0.004
    """Adam's learning rate, in standard deviations of each weight tensor."""
    pixel_weight: float = 1.0
    """Of the mean squared difference."""
    perceptual_weight: float = 1.0
    identity_weight: float = 0.1
    locality_weight: float = 0.5
    """Of keeping other faces what they were; 0 leaves it out."""
    target: float = 0.01
    """Mean perceptual distance at which tuning ends early."""
    depth: int = TUNED_SIZE
    """Weights that act on feature maps of at most so many pixels are tuned."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("keyframes", 1, 512),
            ("rounds", 1, 1000),
            ("rate", 0.0, 1.0),
            ("pixel_weight", 0.0, 1000.0),
            ("perceptual_weight", 0.0, 1000.0),
            ("identity_weight", 0.0, 1000.0),
            ("locality_weight", 0.0, 1000.0),
            ("target", 0.0, 100.0),
            ("depth", 4, 4096),
        ):
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name} should lie between {low:g} and {high:g}, but is {value:g}.")


@dataclass(frozen=True)
class PivotalErrors:
    """Means over the pivots of full renderings, and what happened elsewhere."""

    mse: float
    """Of pixels in [0, 1]."""
    perceptual: float
    """NaN without the network."""
    elsewhere: float
    """Mean squared change of other faces since before, pixels in [0, 1]."""


@dataclass(frozen=True)
class PivotalResult:
    """The same codes with a generator that is tuned to them."""

    codes: InvertedClip
    """With the new weights; as given, if tuning did not help."""
    pivots: tuple[int, ...]
    """Numbers of the codes that were tuned on."""
    before: PivotalErrors
    after: PivotalErrors
    rounds: int
    seconds: float
    perceptual_name: str

    @property
    def helped(self) -> bool:
        """Whether the weights are better than those before."""
        return _total(self.after) < _total(self.before)

    @property
    def report(self) -> str:
        """In words."""
        a, b = self.before, self.after
        kept = "" if self.helped else " It was no better than before: nothing is changed."
        return (
            f"{len(self.pivots)} pivots, {self.rounds} rounds: mean squared error {a.mse:.4f} to {b.mse:.4f}, "
            f"{self.perceptual_name} {a.perceptual:.4f} to {b.perceptual:.4f}; other faces changed by "
            f"{b.elsewhere:.5f}. It took {self.seconds:.0f} s.{kept}"
        )


def tune_to_pivots(
    aligned: AlignedClip,
    codes: InvertedClip,
    generator: Generator,
    settings: PivotalSettings | None = None,
    *,
    perceptual: PerceptualDistance | None,
    identity: IdentityNetwork | None = None,
    progress: Progress = silent,
) -> PivotalResult:
    """Tune the weights of a generator until it shows the frames at their codes, which stay as they are.

    Args:
        aligned: the clip of the codes.
        codes: the pivots, and weights that were tuned before: tuning goes on from there.
        generator: not changed; a copy is tuned.
        perceptual: on the generator's device; None leaves it out.
        identity: the same, a face embedder.
        progress: called after each step with target and reconstruction side by side; may raise to cancel.
    Raises:
        ValueError: codes of another generator or clip.
        TypeError: this kind of generator can't be tuned.
        RuntimeError: the generator gave NaN.
    """
    settings = settings or PivotalSettings()
    check_family("The codes", codes.family, generator.family)
    check_shape("w_plus", codes.w_plus, ("K", generator.num_ws, generator.w_dim))
    if codes.frame_indices.max() >= aligned.clip.num_frames:
        raise ValueError(
            f"The codes reach frame {codes.frame_indices.max()}, but the clip has {aligned.clip.num_frames} frames. "
            "Connect the clip that they were found for."
        )
    started = time.monotonic()
    with reuse_large_blocks():
        run = _Run(aligned, codes, generator, settings, perceptual, identity, progress)
        before = run.errors(run.working)
        rounds = run.tune()
        tuning = as_tuning(run.tuned, codes.tuning)
        after = run.errors(with_tuning(generator, tuning))
    name = "perceptual distance" if perceptual is None else perceptual.name
    seconds = time.monotonic() - started
    result = PivotalResult(codes, tuple(run.pivots), before, after, rounds, seconds, name)
    return replace(result, codes=replace(codes, tuning=tuning)) if result.helped else result


def tuned_generator(generator: Any, tuning: Tuning | None) -> Any:
    """A generator of its own with the tuned weights in place: it shares nothing, and has an id of its own."""
    if tuning is None:
        return copy.deepcopy(generator)
    made = copy.deepcopy(with_tuning(generator, tuning))
    made.generator_id = content_key(
        [generator.generator_id, *(part for name in sorted(tuning.weights) for part in (name, tuning.weights[name]))]
    )[: len(generator.generator_id)]
    return made


class _Run:
    """One tuning: targets, pictures of the start, and the weights on their way."""

    def __init__(
        self,
        aligned: AlignedClip,
        codes: InvertedClip,
        generator: Generator,
        settings: PivotalSettings,
        perceptual: PerceptualDistance | None,
        identity: IdentityNetwork | None,
        progress: Progress,
    ) -> None:
        self._settings, self._perceptual, self._progress = settings, perceptual, progress
        self._size, self._device = min(SIZE, generator.resolution), generator.device
        self.pivots = [int(k) for k in spread(len(codes.times), settings.keyframes)]
        self._codes = codes.w_plus[self.pivots].to(self._device)
        self.working, self.tuned = tunable_copy(generator, codes.tuning, size=settings.depth)
        self._done, self._total = 0, len(self.pivots) * (settings.rounds + 3)
        landmarks = crop_coordinates(aligned)
        self._targets: list[Tensor] = []
        self._emphasis: list[Tensor] = []
        self._identity: list[IdentityLoss | None] = []
        for frame in (int(codes.frame_indices[k]) for k in self.pivots):
            target = crop_clip(aligned, [frame], self._size).to(self._device)
            self._targets.append(target)
            self._emphasis.append(emphasis_map(aligned, frame, self._size).to(self._device))
            sees = identity is not None and has_mesh(aligned, frame)
            self._identity.append(identity.loss_for(target, landmarks[frame] + 0.5) if identity and sees else None)
            self._step_done(target, target)
        picked = self._codes[spread(len(self._codes), _PROXY_CODES).tolist()]
        self._render = local_proxies(self.working, picked, [self._size])[self._size]
        with torch.no_grad():  # what the stand-in leaves out, so that it starts from the exact picture
            self._missing = [self._exact(self.working, code) - self._render(code[None]) for code in self._codes]
            self._elsewhere = self._codes_elsewhere(generator)
            self._was = [self._render(code[None]) for code in self._elsewhere]
            self._was_exact = [self._exact(self.working, code) for code in self._elsewhere]

    def _codes_elsewhere(self, generator: Generator) -> Tensor:
        """`(n, L, D)`: half way from a pivot to sampled faces."""
        sampled = sample_codes(generator, range(_LOCALITY_CODES), truncation_psi=_PSI).to(self._device)
        pivots = self._codes[torch.arange(len(sampled)) % len(self._codes)]
        return pivots.lerp(sampled, 0.5)

    def tune(self) -> int:
        """Change the weights in rounds until the pictures agree; how many rounds it took."""
        settings, count = self._settings, len(self.pivots)
        optimiser, shuffle = weight_adam(self.tuned, settings.rate), random.Random(settings.seed)
        last, steps = float("inf"), settings.rounds * count
        for done_rounds in range(settings.rounds):
            found = []
            for place, k in enumerate(shuffle.sample(range(count), count)):
                step = done_rounds * count + place
                for group in optimiser.param_groups:
                    group["lr"] = group["rate"] * warm_up_and_cosine(step, steps, _WARM_UP_STEPS)
                found.append(self._step(k, step, optimiser))
            loss, distance = (sum(column) / count for column in zip(*found, strict=True))
            if (self._perceptual is not None and distance <= settings.target) or loss > _SETTLED * last:
                return done_rounds + 1
            last = loss
        return settings.rounds

    def _step(self, k: int, step: int, optimiser: torch.optim.Optimizer) -> tuple[float, float]:
        """One pivot; its loss, and its perceptual distance."""
        settings, emphasis = self._settings, self._emphasis[k]
        images = self._render(self._codes[k : k + 1]) + self._missing[k]
        target = self._targets[k]
        loss = settings.pixel_weight * ((images - target).square() * emphasis).mean()
        distance = 0.0
        if self._perceptual is not None and settings.perceptual_weight:
            with torch.no_grad():
                wanted = self._perceptual.features(target, exact=False)
            found = self._perceptual.features(images, exact=False)
            apart = self._perceptual.between_features(found, wanted, emphasis)[0]
            loss, distance = loss + settings.perceptual_weight * apart, apart.item()
        same_person = self._identity[k]
        if same_person is not None and settings.identity_weight:
            loss = loss + settings.identity_weight * same_person(images)[0]
        reached = loss.item()
        if settings.locality_weight:
            other = step % len(self._elsewhere)
            change = self._render(self._elsewhere[other : other + 1]) - self._was[other]
            loss = loss + settings.locality_weight * change.square().mean()
        check_network_output("The generator", loss)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        self._step_done(target, images.detach())
        return reached, distance

    @torch.no_grad()
    def errors(self, generator: Generator) -> PivotalErrors:
        """Of full renderings."""
        squares: list[float] = []
        distances: list[float] = []
        for code, target in zip(self._codes, self._targets, strict=True):
            image = self._exact(generator, code).clamp(-1, 1)
            squares.append(float(F.mse_loss(image, target)) / 4)
            if self._perceptual is not None:
                distances.append(float(self._perceptual(image, target)))
            self._step_done(target, image)
        changes = [
            float(F.mse_loss(self._exact(generator, code), was)) / 4
            for code, was in zip(self._elsewhere, self._was_exact, strict=True)
        ]
        count = len(squares)
        perceptual = sum(distances) / count if distances else float("nan")
        return PivotalErrors(sum(squares) / count, perceptual, sum(changes) / len(changes))

    def _exact(self, generator: Generator, code: Tensor) -> Tensor:
        return generator.synthesize(code[None], size=self._size).float()

    def _step_done(self, target: Tensor, image: Tensor) -> None:
        self._done += 1
        pair = torch.cat([target, image], dim=3)
        self._progress(min(self._done, self._total), self._total, network_to_bytes(pair.cpu())[0])


def _total(errors: PivotalErrors) -> float:
    """What counts when before and after are compared."""
    return errors.mse + (errors.perceptual if errors.perceptual == errors.perceptual else 0.0)


__all__ = ["PivotalErrors", "PivotalResult", "PivotalSettings", "tune_to_pivots", "tuned_generator"]
