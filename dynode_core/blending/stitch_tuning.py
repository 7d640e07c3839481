"""Stitching tuning: the generator learns to meet the source around the face (after Tzaban et al. 2022, STIT).

STIT tunes a copy of the generator for every frame. Here one set of weights serves a whole sample, or one each shot
(ours): it is tuned on a few frames at a time, with and without the edit, so that it costs seconds per frame of those
only, can't flicker, and "no edit means no change" still holds, because both pictures come from the same weights.

Measured on 1 s of a 720p clip, 5 steps of age, 6 frames, 5 rounds: error around the face .298 to .034, seam in the
finished frames that were not tuned on (benchmarks/blend.py) 3.6 to 1.6 levels per pixel ("adaptive"), 3.8 to 1.7
("replace"). White hair at the edge of the region is gone; the wrinkles inside are weaker too.
One set serves several shots: two shots of two people, smile=4, 6 frames of each, 6 rounds, error around the face in
frames that were not tuned on: .036 and .155 before, .026 and .039 with one set for both, .022 and .043 with a set for
each.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..checks import check_family, check_network_output, check_range, check_shape
from ..generators.protocol import Generator
from ..generators.proxy import local_proxies
from ..generators.tuning import as_tuning, tunable_copy, weight_adam, with_tuning
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, part_of, silent
from ..tuned_weights import Tuning, set_number, set_starts, tuning_at, with_new_sets
from ..types import AlignedClip, TrajectorySample
from .settings import BlendSettings
from .stitch_scene import StitchScene, choose_outputs, make_scene
from .stitching import masked_l2

logger = logging.getLogger(__name__)

SIZE = 256
"""Side of the pictures that are compared, at most."""
_SETTLED = 0.98
"""A round that leaves more than this share of the border's error is the last one."""
_PROXY_CODES = 3


@dataclass(frozen=True)
class StitchSettings:
    """How `tune_stitching` works."""

    frames: int = 12
    """Frames of the sample to tune on, at most; but at least one for each set of weights."""
    rounds: int = 10
    """Visits to each of them, at most."""
    rate: float = 0.003
    """Adam's learning rate, in standard deviations of each weight tensor."""
    content_weight: float = 0.01
    """Of keeping the face as it was, beside 1 for meeting the source around it; STIT's."""
    target: float = 0.003
    """Mean error of the border (see `stitching.masked_l2`, pictures in [-1, 1]) at which tuning ends early."""
    region: BlendSettings = field(default_factory=BlendSettings)
    """The region, dilate and feather that blending will use."""
    per_shot: bool = False
    """Whether each shot gets a set of weights of its own."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("frames", self.frames, 1, 512)
        check_range("rounds", self.rounds, 1, 1000)
        check_range("rate", self.rate, 0.0, 1.0)
        check_range("content_weight", self.content_weight, 0.0, 1000.0)
        check_range("target", self.target, 0.0, 100.0)


@dataclass(frozen=True)
class StitchResult:
    """A sample whose faces meet the source better."""

    sample: TrajectorySample
    """With the tuned weights; the one that was given, if they did not help."""
    outputs: tuple[int, ...]
    """Numbers of the output frames that were tuned on."""
    border_before: float
    border_after: float
    """Mean error around the face over these frames, rendered in full."""
    content_change: float
    """Mean squared change of the face itself, in the same unit."""
    rounds: int
    seconds: float
    estimated_s: float
    """What was expected after the first step, for all rounds."""
    sets: int
    """Of weights: one, or one for each shot."""

    @property
    def report(self) -> str:
        """In words."""
        kept = "" if self.border_after < self.border_before else " It was no better than before: nothing is changed."
        shots = f" of {self.sets} shots" if self.sets > 1 else ""
        return (
            f"{len(self.outputs)} frames{shots}, {self.rounds} rounds: the error around the face went from "
            f"{self.border_before:.4f} to {self.border_after:.4f}; the face itself changed by "
            f"{self.content_change:.4f}. It took {self.seconds:.0f} s; after the first step {self.estimated_s:.0f} s "
            f"were expected for all rounds.{kept}"
        )


def tune_stitching(
    sample: TrajectorySample,
    aligned: AlignedClip,
    generator: Generator,
    settings: StitchSettings | None = None,
    *,
    progress: Progress = silent,
) -> StitchResult:
    """Tune the weights of a sample so that its faces meet the source in a band around the region that blending shows.

    Args:
        sample: N codes with and without the edit, and the weights that came with them: tuning goes on from there.
        aligned: the clip that they belong to.
        generator: not changed; a copy is tuned.
        settings: None takes the defaults.
        progress: called after each step with the source beside the face; may raise to cancel.
    Raises:
        ValueError: codes of another generator, or the face is never in the picture.
        TypeError: this kind of generator can't be tuned.
        RuntimeError: the generator gave NaN.
    """
    settings = settings or StitchSettings()
    check_family("The sample", sample.family, generator.family)
    check_shape("w_plus", sample.w_plus, ("N", generator.num_ws, generator.w_dim))
    cuts_s = aligned.track.cut_times(aligned.clip.frame_times) if settings.per_shot else np.empty(0)
    starts_s = set_starts(sample.tuning, cuts_s)
    outputs = np.array(choose_outputs(sample, aligned, settings.frames, starts_s))
    number = set_number(starts_s, sample.times[outputs])
    done, total, started = 0, _steps_of(len(outputs), settings), time.monotonic()
    tuned: dict[int, _Shot] = {}
    with reuse_large_blocks():
        for one in np.unique(number).tolist():
            part = part_of(progress, done, total)
            tuned[one] = _Run(sample, aligned, generator, settings, outputs[number == one].tolist(), part).result()
            done += _steps_of(len(tuned[one].outputs), settings)
    progress(total, total)
    shots, better = list(tuned.values()), {one: shot.tuning for one, shot in tuned.items() if shot.better}
    tuning = with_new_sets(sample.tuning, starts_s, better)

    def mean(column: str) -> float:
        return sum(getattr(shot, column) * len(shot.outputs) for shot in shots) / len(outputs)

    return StitchResult(
        sample=replace(sample, tuning=tuning) if better else sample,
        outputs=tuple(output for shot in shots for output in shot.outputs),
        border_before=mean("border_before"),
        border_after=mean("border_kept"),
        content_change=mean("content_change"),
        rounds=max(shot.rounds for shot in shots),
        seconds=time.monotonic() - started,
        estimated_s=sum(shot.estimated_s for shot in shots),
        sets=len(shots),
    )


@dataclass(frozen=True)
class _Shot:
    """What became of one set of weights."""

    outputs: tuple[int, ...]
    tuning: Tuning
    border_before: float
    border_after: float
    change: float
    rounds: int
    estimated_s: float

    @property
    def better(self) -> bool:
        """Otherwise nothing is changed."""
        return self.border_after < self.border_before

    @property
    def border_kept(self) -> float:
        """With the weights that are used from here on."""
        return min(self.border_after, self.border_before)

    @property
    def content_change(self) -> float:
        """By them."""
        return self.change if self.better else 0.0


class _Run:
    """One tuning: the frames, how they looked before, and the weights on their way."""

    def __init__(
        self,
        sample: TrajectorySample,
        aligned: AlignedClip,
        generator: Generator,
        settings: StitchSettings,
        outputs: list[int],
        progress: Progress,
    ) -> None:
        self._settings, self._progress, self._generator, self._outputs = settings, progress, generator, outputs
        self._done, self._total = 0, _steps_of(len(outputs), settings)
        self._size = min(SIZE, generator.resolution)
        self._earlier = tuning_at(sample.tuning, float(sample.times[outputs[0]]))
        self._working, self._tuned = tunable_copy(generator, self._earlier)
        self._scenes: list[StitchScene] = []
        self._before: list[Tensor] = []
        for index in outputs:
            scene = make_scene(sample, aligned, index, self._size, settings.region, generator.device)
            with torch.no_grad():
                self._before.append(self._working.synthesize(scene.codes, size=self._size).float())
            self._scenes.append(scene)
            self._show(scene, self._before[-1])
        self._render = self._stand_in()
        with torch.no_grad():
            # What the stand-in leaves out, so that it starts from the exact picture.
            self._missing = [
                before - self._render(s.codes) for before, s in zip(self._before, self._scenes, strict=True)
            ]

    def _stand_in(self) -> Callable[[Tensor], Tensor]:
        last = len(self._scenes) - 1
        picked = sorted({i * last // (_PROXY_CODES - 1) for i in range(_PROXY_CODES)})
        codes = torch.cat([self._scenes[i].codes[:1] for i in picked])
        return local_proxies(self._working, codes, [self._size])[self._size]

    def result(self) -> _Shot:
        """Tune, and compare with before."""
        rounds, estimated_s = self._tune()
        tuning = as_tuning(self._tuned, self._earlier)
        before, after, change = self._compare(with_tuning(self._generator, tuning))
        return _Shot(tuple(self._outputs), tuning, before, after, change, rounds, estimated_s)

    def _tune(self) -> tuple[int, float]:
        """Change the weights in rounds until the border agrees; (rounds, seconds expected after the first step)."""
        settings, count = self._settings, len(self._scenes)
        optimiser = weight_adam(self._tuned, settings.rate)
        shuffle, began = random.Random(settings.seed), time.monotonic()
        estimated_s, last = 0.0, float("inf")
        for done_rounds in range(settings.rounds):
            errors = []
            for k in shuffle.sample(range(count), count):
                errors.append(self._step(k, optimiser))
                if not estimated_s:
                    estimated_s = (time.monotonic() - began) * settings.rounds * count
                    logger.info("Stitching tuning of %d frames takes up to about %.0f s.", count, estimated_s)
            error = sum(errors) / count
            if error <= settings.target or error > _SETTLED * last:
                return done_rounds + 1, estimated_s
            last = error
        return settings.rounds, estimated_s

    def _step(self, k: int, optimiser: torch.optim.Adam) -> float:
        """One frame; returns its border error."""
        scene, settings = self._scenes[k], self._settings
        images = self._render(scene.codes) + self._missing[k]
        border = _mean_l2(images, scene.source, scene.masks.border)
        loss = border + settings.content_weight * _mean_l2(images, self._before[k], scene.masks.content)
        check_network_output("The generator", loss)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        self._show(scene, images.detach())
        return border.item()

    @torch.no_grad()
    def _compare(self, tuned: Generator) -> tuple[float, float, float]:
        """Mean border errors before and after, and change of the content, of full renderings."""
        sums = torch.zeros(3)
        for scene, before in zip(self._scenes, self._before, strict=True):
            after = tuned.synthesize(scene.codes, size=self._size).float()
            masks = scene.masks
            sums[0] += _mean_l2(before, scene.source, masks.border).cpu()
            sums[1] += _mean_l2(after, scene.source, masks.border).cpu()
            sums[2] += _mean_l2(after, before, masks.content).cpu()
            self._show(scene, after)
        before_mean, after_mean, change = (sums / len(self._scenes)).tolist()
        return before_mean, after_mean, change

    def _show(self, scene: StitchScene, images: Tensor) -> None:
        self._done += 1
        pair = torch.cat([scene.source, images[:1]], dim=3)
        self._progress(self._done, self._total, network_to_bytes(pair.cpu())[0])


def _steps_of(outputs: int, settings: StitchSettings) -> int:
    """How often tuning reports progress, at most."""
    return outputs * (settings.rounds + 2)


def _mean_l2(images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """`masked_l2`, averaged over the `(B, 3, S, S)` images of one frame."""
    count = len(images)
    return masked_l2(images, targets.expand_as(images), mask.expand(count, -1, -1, -1))
