"""Pivotal tuning: the codes stay, the generator comes to them (after Roich et al. 2021, PTI; one set of weights for all
frames as in Tzaban et al. 2022, STIT, or one for each shot).

Beside reconstruction a locality term keeps the rest of the latent space where it is: half way between a pivot and
sampled faces, pictures should stay what they were. Weights are tuned in parts of their own spread, and only those that
`generators.tuning` names, so that the result is a small change that travels with the codes.
"""

from __future__ import annotations

import copy
import time
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_family, check_shape
from ..generators.protocol import Generator
from ..generators.tuning import as_tuning, with_tuning
from ..memory import reuse_large_blocks
from ..progress import Progress, part_of, silent
from ..spread import spread_over_groups
from ..tensor_cache import TensorCache, content_key
from ..tuned_weights import Tuning, first_set, set_number, set_starts, with_new_sets
from ..types import AlignedClip, InvertedClip
from .identity_loss import IdentityNetwork
from .judges import Judges
from .perceptual import PerceptualDistance
from .pivotal_run import PivotalErrors, PivotalRun, steps_of
from .pivotal_settings import PivotalSettings

CACHE_BYTES = 2 * 2**30
"""A set of weights of StyleGAN2 takes 85 MB, and one on its way three times that."""


@dataclass(frozen=True)
class PivotalShot:
    """What became of one set of weights."""

    number: int
    """Which of the sets it is, from 0."""
    from_s: float
    """When its shot begins; -inf if it is the first one."""
    pivots: tuple[int, ...]
    """Numbers of the codes that were tuned on."""
    tuning: Tuning
    """The weights, which are used if they helped."""
    before: PivotalErrors
    after: PivotalErrors
    rounds: int

    @property
    def helped(self) -> bool:
        """Whether the weights are better than those before."""
        return self.after.total < self.before.total

    @property
    def kept(self) -> PivotalErrors:
        """Of the weights that are used from here on."""
        return self.after if self.helped else self.before

    def text(self, perceptual_name: str) -> str:
        """In words."""
        a, b = self.before, self.after
        kept = "" if self.helped else ". It was no better than before: nothing is changed"
        return (
            f"{len(self.pivots)} pivots, {self.rounds} rounds: mean squared error {a.mse:.4f} to {b.mse:.4f}, "
            f"{perceptual_name} {a.perceptual:.4f} to {b.perceptual:.4f}; other faces changed by "
            f"{b.elsewhere:.5f}{kept}."
        )


@dataclass(frozen=True)
class PivotalResult:
    """The same codes with a generator that is tuned to them."""

    codes: InvertedClip
    """With the new weights; as given, if tuning did not help."""
    shots: tuple[PivotalShot, ...]
    """One for each set of weights."""
    seconds: float
    perceptual_name: str

    @property
    def pivots(self) -> tuple[int, ...]:
        """Numbers of the codes that were tuned on."""
        return tuple(k for shot in self.shots for k in shot.pivots)

    @property
    def before(self) -> PivotalErrors:
        """Means over all pivots."""
        return self._mean("before")

    @property
    def after(self) -> PivotalErrors:
        """The same with the weights of the result: where tuning did not help, as before."""
        return self._mean("kept")

    @property
    def rounds(self) -> int:
        """Most of any set of weights."""
        return max(shot.rounds for shot in self.shots)

    @property
    def helped(self) -> bool:
        """Whether any weights are better than those before."""
        return any(shot.helped for shot in self.shots)

    @property
    def report(self) -> str:
        """In words."""
        took = f"It took {self.seconds:.0f} s."
        if len(self.shots) == 1:
            return f"{self.shots[0].text(self.perceptual_name)} {took}"
        lines = [
            f"Shot {shot.number + 1}, from {max(shot.from_s, 0.0):.2f} s: {shot.text(self.perceptual_name)}"
            for shot in self.shots
        ]
        return "\n".join([*lines, took])

    def _mean(self, when: str) -> PivotalErrors:
        errors = np.array([astuple(getattr(shot, when)) for shot in self.shots])
        return PivotalErrors(*np.average(errors, axis=0, weights=[len(shot.pivots) for shot in self.shots]).tolist())


def tune_to_pivots(
    aligned: AlignedClip,
    codes: InvertedClip,
    generator: Generator,
    settings: PivotalSettings | None = None,
    *,
    perceptual: PerceptualDistance | None,
    identity: IdentityNetwork | None = None,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> PivotalResult:
    """Tune the weights of a generator until it shows the frames at their codes, which stay as they are.

    Args:
        aligned: the clip of the codes.
        codes: the pivots, and weights that were tuned before: tuning goes on from there. If these are one set for each
            shot, so is the result.
        generator: not changed; a copy is tuned.
        perceptual: on the generator's device; None leaves it out.
        identity: the same, a face embedder.
        cache_dir: where rounds are kept, the last one of each set always, others every few seconds, so that the same
            call goes on after an interruption; None: nowhere.
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
    started, judges, cache = time.monotonic(), Judges(perceptual, identity), TensorCache(cache_dir, CACHE_BYTES)
    cuts_s = aligned.track.cut_times(aligned.clip.frame_times) if settings.per_shot else np.empty(0)
    starts_s = set_starts(codes.tuning, cuts_s[cuts_s > codes.times[0]])  # the first set is that of the first code
    groups = _pivots_of_sets(codes, starts_s, settings.keyframes)
    done, total = 0, sum(steps_of(len(pivots), settings) for pivots in groups.values())
    shots: list[PivotalShot] = []
    with reuse_large_blocks():
        for number, pivots in groups.items():
            part = part_of(progress, done, total)
            run = PivotalRun(aligned, codes, pivots, generator, settings, judges, cache, part)
            before, rounds = run.errors(run.working), run.tune()
            tuning = as_tuning(run.tuned, run.earlier)
            after = run.errors(with_tuning(generator, tuning))
            del run  # its pictures, before those of the next one
            shot = PivotalShot(number, float(starts_s[number]), tuple(pivots), tuning, before, after, rounds)
            shots.append(shot)
            done += steps_of(len(pivots), settings)
            progress(done, total)
    name = "perceptual distance" if perceptual is None else perceptual.name
    result = PivotalResult(codes, tuple(shots), time.monotonic() - started, name)
    if not result.helped:
        return result
    better = {shot.number: shot.tuning for shot in shots if shot.helped}
    return replace(result, codes=replace(codes, tuning=with_new_sets(codes.tuning, starts_s, better)))


def tuned_generator(generator: Any, tuning: Tuning | None) -> Any:
    """A generator of its own with the tuned weights in place: it shares nothing, and has an id of its own. Of weights
    for each shot it gets those of the first."""
    tuning = first_set(tuning)
    if tuning is None:
        return copy.deepcopy(generator)
    made = copy.deepcopy(with_tuning(generator, tuning))
    made.generator_id = content_key(
        [generator.generator_id, *(part for name in sorted(tuning.weights) for part in (name, tuning.weights[name]))]
    )[: len(generator.generator_id)]
    return made


def _pivots_of_sets(codes: InvertedClip, starts_s: np.ndarray, most: int) -> dict[int, list[int]]:
    """Numbers of the codes that each set of weights is tuned on; a set without codes is left out."""
    number = set_number(starts_s, codes.times)
    numbers = np.unique(number)
    chosen = spread_over_groups(number, max(most, len(numbers)))
    return {int(one): [int(k) for k in chosen if number[k] == one] for one in numbers}


__all__ = ["PivotalErrors", "PivotalResult", "PivotalSettings", "PivotalShot", "tune_to_pivots", "tuned_generator"]
