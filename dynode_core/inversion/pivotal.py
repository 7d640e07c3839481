"""Pivotal tuning: the codes stay, the generator comes to them (after Roich et al. 2021, PTI; one set of weights for all
frames as in Tzaban et al. 2022, STIT, or one for each shot).

Beside reconstruction a locality term keeps the rest of the latent space where it is: half way between a pivot and
sampled faces, pictures should stay what they were. Weights are tuned in parts of their own spread, and only those that
`generators.tuning` names, so that the result is a small change that travels with the codes.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable
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
from ..tuned_weights import Tuning, tuning_at, tuning_of_shots
from ..types import AlignedClip, InvertedClip
from .identity_loss import IdentityNetwork
from .judges import Judges
from .perceptual import PerceptualDistance
from .pivotal_run import PivotalErrors, PivotalRun, steps_of
from .pivotal_settings import PivotalSettings


@dataclass(frozen=True)
class PivotalShot:
    """What became of one set of weights."""

    pivots: tuple[int, ...]
    """Numbers of the codes that were tuned on."""
    from_s: float
    """When its shot begins; -inf if it is the first one."""
    tuning: Tuning | None
    """The weights, or those that were there before if tuning did not help."""
    before: PivotalErrors
    after: PivotalErrors
    rounds: int

    @property
    def helped(self) -> bool:
        """Whether the weights are better than those before."""
        return self.after.total < self.before.total

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
        """The same, of what tuning reached."""
        return self._mean("after")

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
            f"Shot {number}, from {max(shot.from_s, 0.0):.2f} s: {shot.text(self.perceptual_name)}"
            for number, shot in enumerate(self.shots, start=1)
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
        cache_dir: where finished rounds are kept, so that the same call goes on after an interruption; None: nowhere.
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
    started, judges, cache = time.monotonic(), Judges(perceptual, identity), TensorCache(cache_dir)
    groups = _pivots_of_shots(aligned, codes, settings)
    done, total = 0, sum(steps_of(len(pivots), settings) for pivots, _ in groups)
    shots: list[PivotalShot] = []
    with reuse_large_blocks():
        for pivots, from_s in groups:
            part = part_of(progress, done, total)
            made = functools.partial(PivotalRun, aligned, codes, pivots, generator, settings, judges, cache, part)
            shots.append(_tuned_shot(made, codes, pivots, from_s, generator))
            done += steps_of(len(pivots), settings)
            progress(done, total)
    name = "perceptual distance" if perceptual is None else perceptual.name
    result = PivotalResult(codes, tuple(shots), time.monotonic() - started, name)
    if not result.helped:
        return result
    tuning = tuning_of_shots([shot.tuning for shot in shots], [shot.from_s for shot in shots])
    return replace(result, codes=replace(codes, tuning=tuning))


def tuned_generator(generator: Any, tuning: Tuning | None) -> Any:
    """A generator of its own with the tuned weights in place: it shares nothing, and has an id of its own. Of weights
    for each shot it gets those of the first."""
    if tuning is None:
        return copy.deepcopy(generator)
    made = copy.deepcopy(with_tuning(generator, tuning))
    made.generator_id = content_key(
        [generator.generator_id, *(part for name in sorted(tuning.weights) for part in (name, tuning.weights[name]))]
    )[: len(generator.generator_id)]
    return made


def _tuned_shot(
    make_run: Callable[[], PivotalRun], codes: InvertedClip, pivots: list[int], from_s: float, generator: Generator
) -> PivotalShot:
    run = make_run()
    before = run.errors(run.working)
    rounds = run.tune()
    earlier = tuning_at(codes.tuning, float(codes.times[pivots[0]]))
    tuning = as_tuning(run.tuned, earlier)
    after = run.errors(with_tuning(generator, tuning))
    shot = PivotalShot(tuple(pivots), from_s, tuning, before, after, rounds)
    return shot if shot.helped else replace(shot, tuning=earlier)


def _pivots_of_shots(
    aligned: AlignedClip, codes: InvertedClip, settings: PivotalSettings
) -> list[tuple[list[int], float]]:
    """Numbers of the codes that each set of weights is tuned on, and when its shot begins: one set for everything, or
    one for each shot that has codes."""
    shot = np.zeros(len(codes.times), dtype=np.int64)
    starts_s = np.array([-math.inf])
    if settings.per_shot or (codes.tuning is not None and codes.tuning.later):
        shot = np.searchsorted(aligned.track.shots[1:, 0], codes.frame_indices, side="right")
        starts_s = np.append(starts_s, aligned.track.cut_times(aligned.clip.frame_times))
    numbers = np.unique(shot)
    chosen = spread_over_groups(shot, max(settings.keyframes, len(numbers)))
    return [([int(k) for k in chosen if shot[k] == number], float(starts_s[number])) for number in numbers]


__all__ = ["PivotalErrors", "PivotalResult", "PivotalSettings", "PivotalShot", "tune_to_pivots", "tuned_generator"]
