"""A clip of aligned faces to the W+ codes of its keyframes: paper, section 3.1; the schedule is ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_finite
from ..faces.crop import crop_clip
from ..generators.protocol import Generator
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..types import AlignedClip, InvertedClip
from .cache import KeyframeCache, content_key
from .code_space import measure_code_space
from .emphasis import emphasis_map
from .keyframes import choose_keyframes, crop_coordinates
from .losses import LossWeights
from .optimise import OptimisedCode, Problem, Stage, optimise_code
from .perceptual import PerceptualDistance
from .thumbnail_encoder import load_thumbnail_encoder

SIZE = 256
"""Side of the pictures that the losses see at most."""

QUALITIES: dict[str, tuple[tuple[Stage, ...], tuple[Stage, ...]]] = {
    "draft": (
        (Stage(64, 20, 0.2), Stage(128, 15, 0.15)),
        (Stage(64, 6, 0.12), Stage(128, 6, 0.1)),
    ),
    "normal": (
        (Stage(64, 25, 0.2), Stage(128, 30, 0.18), Stage(256, 22, 0.15), Stage(256, 10, 0.08, exact=True)),
        (Stage(64, 6, 0.12), Stage(128, 8, 0.1), Stage(256, 5, 0.08)),
    ),
    "fine": (
        (Stage(128, 50, 0.2), Stage(256, 50, 0.15), Stage(256, 40, 0.1, exact=True)),
        (Stage(64, 8, 0.12), Stage(128, 15, 0.12), Stage(256, 20, 0.1)),
    ),
}
"""Steps of the first keyframe, and of each further one."""


@dataclass(frozen=True)
class InversionSettings:
    """How much work goes into the codes."""

    quality: str = "normal"
    """One of `QUALITIES`."""
    keyframe_every: int = 0
    """0 chooses keyframes by motion."""
    max_keyframes: int = 0
    """0 means no bound."""
    loss_target: float = 0.0
    """A keyframe is finished early once its loss is at most this; 0 takes every step."""
    max_steps: int = 0
    """Upper bound on the steps of a keyframe; 0 means those of the quality."""
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise ValueError(f"quality should be one of {', '.join(QUALITIES)}, but is {self.quality!r}.")
        if self.max_steps < 0 or self.loss_target < 0:
            raise ValueError(
                f"max_steps = {self.max_steps} and loss_target = {self.loss_target} should not be negative."
            )

    def stages(self, first: bool, resolution: int = SIZE) -> tuple[Stage, ...]:
        """The stages of the first keyframe or of a further one, within `max_steps` and the generator's resolution."""
        stages = QUALITIES[self.quality][0 if first else 1]
        stages = tuple(replace(stage, size=min(stage.size, resolution)) for stage in stages)
        total = sum(stage.steps for stage in stages)
        if not self.max_steps or total <= self.max_steps:
            return stages
        return tuple(replace(stage, steps=max(1, stage.steps * self.max_steps // total)) for stage in stages)


def invert_clip(
    aligned: AlignedClip,
    generator: Generator,
    settings: InversionSettings | None = None,
    *,
    perceptual: PerceptualDistance | None,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> InvertedClip:
    """Codes of the keyframes of a clip, each started from the one before.

    Args:
        aligned: clip and quads.
        generator: frozen; its device is where the work is done.
        perceptual: ST-LPIPS on the same device; None leaves that loss out (blurred results).
        cache_dir: finished keyframes are kept here and found again.
        progress: called after each step with target and reconstruction side by side; may raise to cancel.
    Returns:
        The codes; `report` holds steps, losses and pixel errors per keyframe.
    Raises:
        ValueError: fewer than two frames.
        RuntimeError: the generator gave NaN.
    """
    settings = settings or InversionSettings()
    indices = choose_keyframes(aligned, settings.keyframe_every, settings.max_keyframes)
    run = _Run(aligned, generator, settings, perceptual, KeyframeCache(cache_dir), progress, len(indices))
    with reuse_large_blocks():
        codes = run.all_codes(indices)
    w_plus = torch.cat([code.w_plus for code in codes]).float().cpu()
    check_finite("The codes that inversion found", w_plus)
    return InvertedClip(
        w_plus=w_plus,
        times=aligned.clip.frame_times[indices],
        frame_indices=indices,
        loss=np.array([code.loss for code in codes], np.float32),
        frame_times=aligned.clip.frame_times,
        fps=aligned.clip.fps,
        family=generator.family,
        generator_id=generator.generator_id,
        report={
            "keyframes": len(indices),
            "frames": aligned.clip.num_frames,
            "steps": [code.steps for code in codes],
            "loss": [round(code.loss, 5) for code in codes],
            "perceptual": perceptual.name if perceptual is not None else "none",
            "quality": settings.quality,
        },
    )


class _Run:
    """The state of one inversion: what is fixed, and how far it has come."""

    def __init__(
        self,
        aligned: AlignedClip,
        generator: Generator,
        settings: InversionSettings,
        perceptual: PerceptualDistance | None,
        cache: KeyframeCache,
        progress: Progress,
        num_keyframes: int,
    ) -> None:
        self._aligned, self._generator, self._settings = aligned, generator, settings
        self._perceptual, self._cache, self._progress = perceptual, cache, progress
        self._landmarks = crop_coordinates(aligned)
        self._space = measure_code_space(generator)
        self._anchor: Tensor | None = None
        self._encoder = load_thumbnail_encoder(generator.family)
        self._size = min(SIZE, generator.resolution)
        first, further = (sum(stage.steps + 1 for stage in self._stages(first)) for first in (True, False))
        self._steps_until = np.cumsum([0, first, *[further] * (num_keyframes - 1)])
        self._done = 0

    def _stages(self, first: bool) -> tuple[Stage, ...]:
        return self._settings.stages(first, self._size)

    def all_codes(self, indices: np.ndarray) -> list[OptimisedCode]:
        codes: list[OptimisedCode] = []
        guess_before: Tensor | None = None
        key = ""
        for number, index in enumerate(indices):
            target = crop_clip(self._aligned, [int(index)], self._size).to(self._generator.device)
            guess = self._guess(target)
            candidates = _candidates(guess, guess_before, codes)
            if number > 1:
                candidates = torch.cat([candidates, codes[self._most_alike(indices[: number + 1])].w_plus])
            key = self._key(key, target, number == 0)
            code = self._cache.get(key)
            if code is None:
                code = self._invert_one(int(index), target, candidates, number == 0)
                self._cache.put(key, code)
            codes.append(replace(code, w_plus=code.w_plus.to(target.device)))
            self._anchor = codes[0].w_plus
            guess_before = guess
            self._done = int(self._steps_until[number + 1])
            self._progress(self._done, int(self._steps_until[-1]))
        return codes

    def _most_alike(self, indices: np.ndarray) -> int:
        """Which earlier keyframe has the landmarks nearest to those of the last of `indices`: an expression returns."""
        landmarks = self._landmarks[indices]
        return int(np.linalg.norm(landmarks[:-1] - landmarks[-1], axis=2).mean(axis=1).argmin())

    def _guess(self, target: Tensor) -> Tensor:
        """`(1, L, D)`: the encoder's guess, or w_avg where there is no encoder."""
        w = self._generator.w_avg[None] if self._encoder is None else self._encoder(target.cpu()).to(target.device)
        return w[:, None].expand(-1, self._generator.num_ws, -1)

    def _key(self, key_before: str, target: Tensor, first: bool) -> str:
        perceptual = self._perceptual.name if self._perceptual is not None else ""
        settings = f"{self._stages(first)}{self._settings.loss_target}{self._settings.weights}"
        return content_key([key_before, self._generator.generator_id, perceptual, settings, target])

    def _invert_one(self, index: int, target: Tensor, candidates: Tensor, first: bool) -> OptimisedCode:
        emphasis = emphasis_map(self._aligned, index, self._size).to(target.device)
        weights, space = self._settings.weights, self._space
        problem = Problem(self._generator, target, emphasis, self._perceptual, weights, space, self._anchor)

        def on_step(image: Tensor) -> None:
            if not bool(torch.isfinite(image).all()):
                raise RuntimeError("The generator gave NaN. If it runs in fp16, load it in fp32.")
            self._done += 1
            picture = network_to_bytes(torch.cat([target, F.interpolate(image.float(), size=self._size)], dim=3))[0]
            self._progress(self._done, int(self._steps_until[-1]), picture)

        target_loss = self._settings.loss_target
        return optimise_code(problem, candidates, self._stages(first), loss_target=target_loss, on_step=on_step)


def _candidates(guess: Tensor, guess_before: Tensor | None, codes: Sequence[OptimisedCode]) -> Tensor:
    """`(M, L, D)` starting codes: the previous keyframe's, also moved by what the encoder saw move."""
    if not codes or guess_before is None:
        return guess
    before = codes[-1].w_plus
    moved = guess - guess_before
    candidates = [before, before + 0.5 * moved, before + moved]
    if len(codes) > 1:
        candidates.append(2 * before - codes[-2].w_plus)
    return torch.cat(candidates)
