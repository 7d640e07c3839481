"""A clip of aligned faces to the W+ codes of its keyframes: paper, section 3.1; the schedule is ours."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_finite, check_network_output
from ..faces.crop import crop_clip
from ..faces.quads import quad_sides_px
from ..generators.protocol import Generator
from ..generators.tuning import TUNED_SIZE, Tunable
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..tensor_cache import TensorCache, content_key
from ..tuning_files import pack_tuning, unpack_tuning
from ..types import AlignedClip, EditDirection, InvertedClip
from .anchor import choose_anchor
from .cache import KeyframeCache
from .code_space import SharedRows, measure_code_space
from .emphasis import emphasis_map, shows_face
from .encoders import StyleEncoder
from .expression_shift import expression_shift
from .first_guess import FirstGuess, first_guess
from .identity_loss import IdentityNetwork
from .joint import JointResult, JointStage, LossOf, refine_together
from .judges import Judges
from .keyframes import choose_keyframes, crop_coordinates
from .losses import ReconstructionLoss, code_penalty
from .optimise import OptimisedCode, Problem, optimise_code
from .perceptual import PerceptualDistance
from .settings import SIZE, W_ONLY, InversionSettings

_KEPT_LOSSES = 64
_WAY = 2
"""Number of the way in which keyframes are found; what an earlier one left in the cache is not taken. Raise it when the
search changes, or the encoders that ship."""


def invert_clip(
    aligned: AlignedClip,
    generator: Generator,
    settings: InversionSettings | None = None,
    *,
    perceptual: PerceptualDistance | None,
    identity: IdentityNetwork | None = None,
    encoder: StyleEncoder | None = None,
    expressions: Mapping[str, EditDirection] | None = None,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> InvertedClip:
    """Codes of the keyframes of a clip: the first one alone, then all together.

    Args:
        aligned: clip and quads.
        generator: frozen; its device is where the work is done.
        perceptual: ST-LPIPS on the same device; None leaves that loss out (blurred results).
        identity: a face embedder on the same device; None leaves that loss out (less like the person).
        encoder: e4e, pSp or ReStyle on the same device, whose guess is where the search starts; None starts from what
            ships for this family, or from w_avg.
        expressions: directions by name; those whose strength blendshapes tell ("mouth open", "eyes closed", "smile")
            show each keyframe where to start (see `expression_shift`). Not asked where an `encoder` is given.
        cache_dir: finished keyframes are kept here and found again.
        progress: called after each step with target and reconstruction side by side; may raise to cancel.
    Returns:
        The codes, with the weights that were tuned to the person; `report` holds the loss of each keyframe.
    Raises:
        ValueError: fewer than two frames, or an encoder for other codes.
        RuntimeError: the generator gave NaN.
    """
    settings = settings or InversionSettings()
    indices = choose_keyframes(aligned, settings.keyframe_every, settings.max_keyframes)
    judges = Judges(perceptual, identity)
    guess = first_guess(aligned, generator, encoder, perceptual=perceptual, identity=identity)
    with reuse_large_blocks():
        cache = TensorCache(cache_dir)
        run = _Run(aligned, generator, settings, judges, guess, expressions or {}, cache, progress, indices)
        joint = run.all_codes()
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
            "loss": [round(loss, 5) for loss in joint.losses],
            "perceptual": perceptual.name if perceptual is not None else "none",
            "identity": identity.name if identity is not None else "none",
            "start": guess.name,
            "tuned": joint.tuning is not None,
            "quality": settings.quality,
            "space": settings.space,
            "source": aligned.clip.clip_id,
        },
        tuning=joint.tuning,
        cuts_s=aligned.track.cut_times(aligned.clip.frame_times),
    )


class _Run:
    """The state of one inversion: what is fixed, and how far it has come."""

    def __init__(
        self,
        aligned: AlignedClip,
        generator: Generator,
        settings: InversionSettings,
        judges: Judges,
        guess: FirstGuess,
        expressions: Mapping[str, EditDirection],
        cache: TensorCache,
        progress: Progress,
        indices: np.ndarray,
    ) -> None:
        self._aligned, self._generator, self._settings = aligned, generator, settings
        self._judges, self._guess, self._expressions = judges, guess, expressions
        self._cache, self._progress, self._indices = cache, progress, indices
        self._landmarks = crop_coordinates(aligned)
        self._anchor = choose_anchor(aligned, indices)
        space = measure_code_space(generator)
        self._space = SharedRows.of(space, generator.num_ws) if settings.space == W_ONLY else space
        self._size = min(SIZE, generator.resolution)
        sides = quad_sides_px(aligned.quads[indices])
        self._detail_px = [min(self._size, math.ceil(side)) for side in sides]
        self._weights = settings.loss_weights.for_detail(min(1.0, float(np.median(sides)) / self._size))
        self._targets: list[Tensor] = []
        for index in indices:
            progress(0, 1)  # reading a long clip takes a while, and may be cancelled
            self._targets.append(crop_clip(aligned, [int(index)], self._size).cpu())
        self._shots = aligned.track.shot_of(indices)
        self._first = settings.first_stages(self._size)
        self._joint = settings.joint_stages(len(indices), self._size, can_tune=isinstance(generator, Tunable))
        first, visits = sum(stage.steps + 1 for stage in self._first), sum(stage.visits for stage in self._joint)
        self._total, self._done = first + visits * len(indices), 0
        if not settings.together:
            self._total = first * len(indices)

    def all_codes(self) -> JointResult:
        """The anchor alone, then all of them from there."""
        if not self._settings.together:
            return self._codes_apart()
        key, code = self._base_key(self._anchor), self._code_alone(self._anchor)
        self._done = self._total - sum(stage.visits for stage in self._joint) * len(self._indices)
        self._progress(self._done, self._total)
        start = self._guesses(code.w_plus.to(self._generator.device))
        key = content_key([key, *self._targets, start])
        result = JointResult(start, None, (code.loss,) * len(start))
        for stage in self._joint:
            shots = [self._shots] if self._settings.offset_rank else []
            key = content_key([key, f"{_WAY} {stage} {TUNED_SIZE} {self._settings.offset_rank}", *shots])
            found = _unpacked(self._cache.get(key), start)
            if found is None:
                found = self._refine(result, stage, key)
                self._cache.put(key, _packed(found))
            else:
                self._done += stage.visits * len(start)
                self._progress(self._done, self._total)
            result = found
        return result

    def _codes_apart(self) -> JointResult:
        """Every keyframe alone."""
        codes = []
        for k in range(len(self._indices)):
            codes.append(self._code_alone(k))
            self._done = (k + 1) * self._total // len(self._indices)
            self._progress(self._done, self._total)
        found = torch.cat([code.w_plus.to(self._generator.device) for code in codes])
        return JointResult(found, None, tuple(code.loss for code in codes))

    def _code_alone(self, k: int) -> OptimisedCode:
        """The code of one keyframe, from the encoder's guess; kept and found again."""
        key, cache = self._base_key(k), KeyframeCache(self._cache)
        code = cache.get(key)
        if code is None:
            code = optimise_code(
                self._problem(k),
                self._guessed(k),
                self._first,
                loss_target=self._settings.loss_target,
                on_step=lambda image: self._show(k, image),
            )
            cache.put(key, code)
        return code

    def _guesses(self, code: Tensor) -> Tensor:
        """`(K, L, D)`: the anchor's code, moved by what the encoder and the blendshapes see change from there."""
        guesses = torch.cat([self._guessed(k) for k in range(len(self._indices))])
        shares, rows = self._guess.shifts, code.shape[1]
        shift = expression_shift(self._aligned, self._indices, self._expressions, rows, self._anchor, shares)
        return code + (guesses - guesses[self._anchor]) + shift.to(code)

    def _refine(self, before: JointResult, stage: JointStage, key: str) -> JointResult:
        """One joint stage; after each round its state is kept, so that a cancelled one goes on there."""
        round_key = content_key([key, "round"])
        saved = self._cache.get(round_key)
        if saved is not None and "steps" in saved:
            self._done += int(saved["steps"])
        is_last, weights = stage is self._joint[-1], self._weights
        return refine_together(
            self._generator,
            before.w_plus,
            stage,
            self._loss_of(),
            self._space,
            tuning=before.tuning,
            loss_target=self._settings.loss_target if is_last else 0.0,
            offset_rank=self._settings.offset_rank,
            shots=self._shots,
            penalty=functools.partial(code_penalty, weights=replace(weights, size=weights.joint_size)),
            resume=saved,
            on_step=self._show,
            on_round=lambda state: self._cache.put(round_key, state),
        )

    def _guessed(self, k: int) -> Tensor:
        return self._guess.code_of(self._target(k), int(self._indices[k]))

    def _base_key(self, k: int) -> str:
        """Of the code that keyframe `k` gets alone."""
        settings = f"{_WAY}{self._first}{self._settings.loss_target}{self._weights}{self._settings.space}"
        settings += self._guess.name
        detail = str(self._detail_px if self._settings.together else self._detail_px[k])
        seen = [torch.from_numpy(self._landmarks[self._indices[k]].astype(np.float32)), self._targets[k]]
        return content_key([self._generator.generator_id, self._judges.names, settings, detail, *seen])

    def _target(self, k: int) -> Tensor:
        return self._targets[k].to(self._generator.device)

    def _problem(self, k: int) -> Problem:
        index, target = int(self._indices[k]), self._target(k)
        emphasis = emphasis_map(self._aligned, index, self._size, self._weights.eyes_and_mouth).to(target.device)
        identity = None
        if self._judges.identity is not None and shows_face(self._aligned, index):
            identity = self._judges.identity.loss_for(target, self._landmarks[index] + 0.5)
        perceptual, weights = self._judges.perceptual, self._weights
        return Problem(
            self._generator, target, emphasis, perceptual, weights, self._space, identity, self._detail_px[k]
        )

    def _loss_of(self) -> LossOf:
        """Losses of the keyframes, of which the last used are kept: each holds some megabytes of feature maps."""

        @functools.lru_cache(maxsize=_KEPT_LOSSES)
        def loss_of(k: int, size: int) -> ReconstructionLoss:
            return self._problem(k).loss_at(size)

        return loss_of

    def _show(self, k: int, image: Tensor | None) -> None:
        """One step is done: report it with target and reconstruction side by side."""
        self._done += 1
        if image is None:
            self._progress(self._done, self._total)
            return
        check_network_output("The generator", image)
        image = F.interpolate(image.float().cpu(), size=self._size)
        pair = torch.cat([self._targets[k], image], dim=3)
        self._progress(self._done, self._total, network_to_bytes(pair)[0])


def _packed(result: JointResult) -> dict[str, Tensor]:
    return {"w_plus": result.w_plus, "losses": torch.tensor(result.losses)} | pack_tuning(result.tuning)


def _unpacked(tensors: dict[str, Tensor] | None, like: Tensor) -> JointResult | None:
    if tensors is None or tensors.get("w_plus", torch.empty(0)).shape != like.shape or "losses" not in tensors:
        return None
    return JointResult(tensors["w_plus"].to(like.device), unpack_tuning(tensors), tuple(tensors["losses"].tolist()))
