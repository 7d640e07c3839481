"""A clip of aligned faces to the W+ codes of its keyframes: paper, section 3.1; the schedule is ours."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_finite
from ..faces.crop import crop_clip
from ..generators.protocol import Generator
from ..generators.tuning import Tunable
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..types import AlignedClip, InvertedClip, Tuning
from .cache import KeyframeCache, TensorCache, content_key
from .code_space import measure_code_space
from .emphasis import emphasis_map, has_mesh
from .identity_loss import IdentityNetwork
from .joint import JointResult, LossOf, refine_together
from .keyframes import choose_keyframes, crop_coordinates
from .losses import ReconstructionLoss
from .optimise import OptimisedCode, Problem, Stage, optimise_code
from .perceptual import PerceptualDistance
from .settings import SIZE, InversionSettings
from .thumbnail_encoder import load_thumbnail_encoder

_KEPT_LOSSES = 64
_WEIGHT_PREFIX = "weights."


def invert_clip(
    aligned: AlignedClip,
    generator: Generator,
    settings: InversionSettings | None = None,
    *,
    perceptual: PerceptualDistance | None,
    identity: IdentityNetwork | None = None,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> InvertedClip:
    """Codes of the keyframes of a clip, each started from the one before, then refined together.

    Args:
        aligned: clip and quads.
        generator: frozen; its device is where the work is done.
        perceptual: ST-LPIPS on the same device; None leaves that loss out (blurred results).
        identity: a face embedder on the same device; None leaves that loss out (less like the person).
        cache_dir: finished keyframes are kept here and found again.
        progress: called after each step with target and reconstruction side by side; may raise to cancel.
    Returns:
        The codes, with the weights that were tuned to the person; `report` holds steps and losses per keyframe.
    Raises:
        ValueError: fewer than two frames.
        RuntimeError: the generator gave NaN.
    """
    settings = settings or InversionSettings()
    indices = choose_keyframes(aligned, settings.keyframe_every, settings.max_keyframes)
    cache = TensorCache(cache_dir)
    keyframes = _Run(aligned, generator, settings, perceptual, identity, cache, progress, indices)
    with reuse_large_blocks():
        codes = keyframes.all_codes()
        joint = keyframes.refine(codes)
    w_plus = joint.w_plus.float().cpu()
    check_finite("The codes that inversion found", w_plus)
    return InvertedClip(
        w_plus=w_plus,
        times=aligned.clip.frame_times[indices],
        frame_indices=indices,
        loss=np.array(joint.losses, np.float32),
        frame_times=aligned.clip.frame_times,
        fps=aligned.clip.fps,
        family=generator.family,
        generator_id=generator.generator_id,
        report={
            "keyframes": len(indices),
            "frames": aligned.clip.num_frames,
            "steps": [code.steps for code in codes],
            "loss": [round(loss, 5) for loss in joint.losses],
            "perceptual": perceptual.name if perceptual is not None else "none",
            "identity": identity.name if identity is not None else "none",
            "tuned": joint.tuning is not None,
            "quality": settings.quality,
        },
        tuning=joint.tuning,
    )


class _Run:
    """The state of one inversion: what is fixed, and how far it has come."""

    def __init__(
        self,
        aligned: AlignedClip,
        generator: Generator,
        settings: InversionSettings,
        perceptual: PerceptualDistance | None,
        identity: IdentityNetwork | None,
        cache: TensorCache,
        progress: Progress,
        indices: np.ndarray,
    ) -> None:
        self._aligned, self._generator, self._settings = aligned, generator, settings
        self._perceptual, self._identity = perceptual, identity
        self._cache, self._keyframe_cache = cache, KeyframeCache(cache)
        self._progress, self._indices = progress, indices
        self._landmarks = crop_coordinates(aligned)
        self._space = measure_code_space(generator)
        self._anchor: Tensor | None = None
        self._encoder = load_thumbnail_encoder(generator.family)
        self._size = min(SIZE, generator.resolution)
        self._joint = settings.joint_stages(self._size, can_tune=isinstance(generator, Tunable))
        self._targets: list[Tensor] = []
        self._key = ""
        first, further = (sum(stage.steps + 1 for stage in self._stages(first)) for first in (True, False))
        self._steps_until = np.cumsum([0, first, *[further] * (len(indices) - 1)])
        self._total = int(self._steps_until[-1]) + sum(stage.visits for stage in self._joint) * len(indices)
        self._done = 0

    def _stages(self, first: bool) -> tuple[Stage, ...]:
        return self._settings.stages(first, self._size)

    def all_codes(self) -> list[OptimisedCode]:
        """Codes of the keyframes, one after the other."""
        codes: list[OptimisedCode] = []
        guess_before: Tensor | None = None
        for number, index in enumerate(self._indices):
            target = crop_clip(self._aligned, [int(index)], self._size).to(self._generator.device)
            self._targets.append(target.cpu())
            guess = self._guess(target)
            candidates = _candidates(guess, guess_before, codes)
            if number > 1:
                candidates = torch.cat([candidates, codes[self._most_alike(number)].w_plus])
            self._key = self._key_of(target, self._stages(number == 0))
            code = self._keyframe_cache.get(self._key)
            if code is None:
                code = self._invert_one(number, target, candidates)
                self._keyframe_cache.put(self._key, code)
            codes.append(replace(code, w_plus=code.w_plus.to(target.device)))
            self._anchor = codes[0].w_plus
            guess_before = guess
            self._done = int(self._steps_until[number + 1])
            self._progress(self._done, self._total)
        return codes

    def refine(self, codes: Sequence[OptimisedCode]) -> JointResult:
        """The stages in which all keyframes are refined together; a finished one is found again in the cache."""
        result = JointResult(torch.cat([code.w_plus for code in codes]), None, tuple(code.loss for code in codes))
        for stage in self._joint:
            self._key = content_key([self._key, str(stage)])
            found = _unpacked(self._cache.get(self._key), result.w_plus)
            if found is None:
                found = refine_together(
                    self._generator,
                    result.w_plus,
                    stage,
                    self._loss_of(),
                    self._space,
                    tuning=result.tuning,
                    on_step=lambda k, image: self._show(self._targets[k], image),
                )
                self._cache.put(self._key, _packed(found))
            else:
                self._done += stage.visits * len(codes)
            result = found
        return result

    def _most_alike(self, number: int) -> int:
        """Which earlier keyframe has the landmarks nearest to those of keyframe `number`: an expression returns."""
        landmarks = self._landmarks[self._indices[: number + 1]]
        return int(np.linalg.norm(landmarks[:-1] - landmarks[-1], axis=2).mean(axis=1).argmin())

    def _guess(self, target: Tensor) -> Tensor:
        """`(1, L, D)`: the encoder's guess, or w_avg where there is no encoder."""
        w = self._generator.w_avg[None] if self._encoder is None else self._encoder(target.cpu()).to(target.device)
        return w[:, None].expand(-1, self._generator.num_ws, -1)

    def _key_of(self, target: Tensor, stages: tuple[Stage, ...]) -> str:
        networks = ",".join(
            network.name if network is not None else "" for network in (self._perceptual, self._identity)
        )
        settings = f"{stages}{self._settings.loss_target}{self._settings.weights}"
        return content_key([self._key, self._generator.generator_id, networks, settings, target])

    def _problem(self, number: int, target: Tensor) -> Problem:
        index = int(self._indices[number])
        emphasis = emphasis_map(self._aligned, index, self._size).to(target.device)
        identity = None
        if self._identity is not None and has_mesh(self._aligned, index):
            identity = self._identity.loss_for(target, self._landmarks[index] + 0.5)
        weights = self._settings.weights
        return Problem(
            self._generator, target, emphasis, self._perceptual, weights, self._space, self._anchor, identity
        )

    def _loss_of(self) -> LossOf:
        """Losses of the keyframes, of which the last used are kept: each holds some megabytes of feature maps."""

        @functools.lru_cache(maxsize=_KEPT_LOSSES)
        def loss_of(number: int, size: int) -> ReconstructionLoss:
            return self._problem(number, self._targets[number].to(self._generator.device)).loss_at(size)

        return loss_of

    def _invert_one(self, number: int, target: Tensor, candidates: Tensor) -> OptimisedCode:
        return optimise_code(
            self._problem(number, target),
            candidates,
            self._stages(number == 0),
            loss_target=self._settings.loss_target,
            on_step=lambda image: self._show(target, image),
        )

    def _show(self, target: Tensor, image: Tensor) -> None:
        """One step is done: report it with target and reconstruction side by side."""
        if not bool(torch.isfinite(image).all()):
            raise RuntimeError("The generator gave NaN. If it runs in fp16, load it in fp32.")
        self._done += 1
        image = F.interpolate(image.float().cpu(), size=self._size)
        self._progress(self._done, self._total, network_to_bytes(torch.cat([target.cpu(), image], dim=3))[0])


def _packed(result: JointResult) -> dict[str, Tensor]:
    weights = result.tuning.weights if result.tuning is not None else {}
    named = {f"{_WEIGHT_PREFIX}{name}": value for name, value in weights.items()}
    return {"w_plus": result.w_plus, "losses": torch.tensor(result.losses), **named}


def _unpacked(tensors: dict[str, Tensor] | None, like: Tensor) -> JointResult | None:
    if tensors is None or tensors.get("w_plus", torch.empty(0)).shape != like.shape or "losses" not in tensors:
        return None
    weights = {
        name.removeprefix(_WEIGHT_PREFIX): value for name, value in tensors.items() if name.startswith(_WEIGHT_PREFIX)
    }
    tuning = Tuning(weights) if weights else None
    return JointResult(tensors["w_plus"].to(like.device), tuning, tuple(tensors["losses"].tolist()))


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
