"""One run of pivotal tuning: a set of weights that comes to its pivots."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_network_output
from ..faces.crop import crop_clip
from ..generators.protocol import Generator
from ..generators.proxy import exact_pictures, local_proxies
from ..generators.sampling import sample_codes
from ..generators.tuning import tunable_copy, weight_adam
from ..generators.tuning_state import holds_weights, pack_weights, restore_weights
from ..layout import network_to_bytes
from ..progress import Progress
from ..spread import spread
from ..tensor_cache import TensorCache, content_key
from ..tuned_weights import tuning_at
from ..types import AlignedClip, InvertedClip
from .emphasis import emphasis_map, shows_face
from .identity_loss import IdentityLoss
from .judges import Judges
from .keyframes import crop_coordinates
from .pivotal_settings import PivotalSettings
from .schedule import warm_up_and_cosine

SIZE = 256
_WARM_UP_STEPS = 5
_PROXY_CODES = 3
_LOCALITY_CODES = 6
_PSI = 0.7
_SETTLED, _PATIENCE = 0.99, 3
"""So many rounds in turn that leave more than this share of the least loss so far end a run. The first ones often do:
codes come from a search that tuned as well, in ever smaller steps. Measured on 11 pictures, codes of that search: the
second round is worse than the first, the ninth leaves .46 of its loss."""
KEEP_EVERY_S = 10.0
"""Least time between two states of a run on the disk."""


@dataclass(frozen=True)
class PivotalErrors:
    """Means over the pivots of full renderings, and what happened elsewhere."""

    mse: float
    """Of pixels in [0, 1]."""
    perceptual: float
    """NaN without the network."""
    elsewhere: float
    """Mean squared change of other faces since before, pixels in [0, 1]."""

    @property
    def total(self) -> float:
        """What counts when before and after are compared."""
        return self.mse + (0.0 if math.isnan(self.perceptual) else self.perceptual)


def steps_of(pivots: int, settings: PivotalSettings) -> int:
    """How often a run reports progress, at most."""
    return pivots * (settings.rounds + 3)


class PivotalRun:
    """Targets, pictures of the start, and the weights on their way."""

    def __init__(
        self,
        aligned: AlignedClip,
        codes: InvertedClip,
        pivots: list[int],
        generator: Generator,
        settings: PivotalSettings,
        judges: Judges,
        cache: TensorCache,
        progress: Progress,
    ) -> None:
        """
        Args:
            pivots: numbers of the codes that are tuned on.
        """
        self._settings, self._progress, self._cache = settings, progress, cache
        self._perceptual, identity = judges.perceptual, judges.identity
        self._size, self._device = min(SIZE, generator.resolution), generator.device
        self._codes = codes.w_plus[pivots].to(self._device)
        self.earlier = tuning_at(codes.tuning, float(codes.times[pivots[0]]))
        self.working, self.tuned = tunable_copy(generator, self.earlier, size=settings.depth)
        self._done, self._total = 0, steps_of(len(pivots), settings)
        frames = codes.frame_indices[pivots]
        landmarks = crop_coordinates(aligned, frames)
        self._targets: list[Tensor] = []
        self._emphasis: list[Tensor] = []
        self._identity: list[IdentityLoss | None] = []
        for place, frame in enumerate(frames.tolist()):
            target = crop_clip(aligned, [frame], self._size).to(self._device)
            self._targets.append(target)
            self._emphasis.append(emphasis_map(aligned, frame, self._size).to(self._device))
            sees = identity is not None and shows_face(aligned, frame)
            self._identity.append(identity.loss_for(target, landmarks[place] + 0.5) if identity and sees else None)
            self._step_done(target, target)
        picked = self._codes[spread(len(self._codes), _PROXY_CODES).tolist()]
        self._pictures = exact_pictures(self.working, self._size)
        # Good enough to compare faces elsewhere, which are not looked at.
        self._render = local_proxies(self.working, picked, [self._size])[self._size]
        with torch.no_grad():
            self._elsewhere = self._codes_elsewhere(generator)
            self._was = [self._render(code[None]) for code in self._elsewhere]
            self._was_exact = [self._exact(self.working, code) for code in self._elsewhere]
        self._kept = -math.inf
        how = replace(settings, per_shot=False, keyframes=1)  # which pivots these choose is in the codes
        names = f"pivotal 2 {generator.generator_id} {how} {judges.names}"
        weights = {} if self.earlier is None else dict(sorted(self.earlier.weights.items()))
        targets = [self._codes, *self._targets, *self._emphasis]
        self._key = content_key([names, *targets, landmarks, *weights, *weights.values()])

    def _codes_elsewhere(self, generator: Generator) -> Tensor:
        """`(n, L, D)`: half way from a pivot to sampled faces."""
        sampled = sample_codes(generator, range(_LOCALITY_CODES), truncation_psi=_PSI).to(self._device)
        pivots = self._codes[torch.arange(len(sampled)) % len(self._codes)]
        return pivots.lerp(sampled, 0.5)

    def tune(self) -> int:
        """Change the weights in rounds until the pictures agree; how many rounds it took. A cancelled run goes on after
        the last round that was kept."""
        settings, count = self._settings, len(self._codes)
        optimiser, shuffle = weight_adam(self.tuned, settings.rate), random.Random(settings.seed)
        orders = [shuffle.sample(range(count), count) for _ in range(settings.rounds)]
        rounds, least, stale, ended = self._restore(optimiser)
        while not ended:
            found = []
            for place, k in enumerate(orders[rounds]):
                step = rounds * count + place
                for group in optimiser.param_groups:
                    group["lr"] = group["rate"] * warm_up_and_cosine(step, settings.rounds * count, _WARM_UP_STEPS)
                found.append(self._step(k, step, optimiser))
            loss, distance = (sum(column) / count for column in zip(*found, strict=True))
            rounds += 1
            reached = self._perceptual is not None and distance <= settings.target
            stale = stale + 1 if loss > _SETTLED * least else 0
            least = min(least, loss)
            ended = reached or stale == _PATIENCE or rounds == settings.rounds
            self._keep(optimiser, ended, rounds=rounds, stale=stale, least=least)
        return rounds

    def _keep(self, optimiser: torch.optim.Adam, ended: bool, **facts: float) -> None:
        """After a round; moments of many megabytes at most every few seconds, the last weights always."""
        now = time.monotonic()
        if not self._cache.keeps or (now - self._kept < KEEP_EVERY_S and not ended):
            return
        state = pack_weights(self.tuned, None if ended else optimiser)
        state |= {name: torch.tensor(value, dtype=torch.float64) for name, value in facts.items()}
        self._cache.put(self._key, state | {"ended": torch.tensor(ended)})
        self._kept = now

    def _restore(self, optimiser: torch.optim.Adam) -> tuple[int, float, int, bool]:
        """Take over what was kept: rounds that are done, their least loss, how many in the end left more than
        `_SETTLED` of it, whether the run has ended."""
        saved, facts = self._cache.get(self._key), {"rounds", "least", "stale", "ended"}
        if saved is None or not saved.keys() >= facts or not holds_weights(saved, self.tuned):
            return 0, math.inf, 0, False
        ended, rounds = bool(saved["ended"]), int(saved["rounds"])
        restore_weights(saved, self.tuned, None if ended else optimiser)
        self._done += rounds * len(self._codes)
        return rounds, float(saved["least"]), int(saved["stale"]), ended

    def _step(self, k: int, step: int, optimiser: torch.optim.Optimizer) -> tuple[float, float]:
        """One pivot; its loss, and its perceptual distance."""
        settings, emphasis = self._settings, self._emphasis[k]
        images = self._pictures(self._codes[k : k + 1])
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
