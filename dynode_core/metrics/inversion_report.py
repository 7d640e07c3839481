"""The quality of an inverted clip, frame by frame: at keyframes, and at frames between them after the trajectory.

Frames are read, rendered and forgotten one at a time, so the length of a clip costs no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..checks import check_family
from ..editing.latent import check_direction_fits
from ..faces.crop import crop_clip
from ..generators.protocol import Generator
from ..generators.tuning import with_tuning
from ..inversion.code_space import measure_code_space
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..ode import solve_at_times
from ..progress import Progress, silent
from ..spread import spread
from ..tuned_weights import tuning_at
from ..types import AlignedClip, EditDirection, InvertedClip, LatentTrajectory
from .editability import Probe, ProbeEffect, mean_effect, reference_codes
from .frame_quality import (
    BETWEEN,
    COLUMNS,
    KEYFRAME,
    NAN,
    FrameQuality,
    Instruments,
    Pair,
    look_at,
    measure_code,
    measure_pair,
)
from .jitter import shake

SHOWN = 6


@dataclass(frozen=True)
class ReportSettings:
    """What is measured."""

    size: int = 256
    """Side of the pictures in pixels."""
    keyframes: int = 0
    """At most so many keyframes, evenly spread; 0: all."""
    between: int = 24
    """At most so many frames between them, evenly spread, where there is a trajectory."""
    strength: float = 3.0
    """Of the probe edit."""

    def __post_init__(self) -> None:
        if self.size < 64 or self.keyframes < 0 or self.between < 0:
            raise ValueError(
                f"size = {self.size}, keyframes = {self.keyframes} and between = {self.between}: expected at least "
                "64, 0 and 0."
            )


@dataclass(frozen=True)
class ShownFrame:
    """A column of the picture: `(S, S, 3)` uint8 each."""

    quality: FrameQuality
    crop: np.ndarray
    image: np.ndarray
    edited: np.ndarray | None


@dataclass(frozen=True)
class InversionReport:
    """What was found."""

    frames: tuple[FrameQuality, ...]
    """In the order of time."""
    shown: tuple[ShownFrame, ...]
    shake: float
    """How much landmarks of the reconstruction shake against the clip (`jitter.shake`), in sides of the crop."""
    instruments: dict[str, str] = field(default_factory=dict)
    probe: str = "none"
    reference: ProbeEffect | None = None
    """What the probe does to faces that the generator samples."""
    notes: tuple[str, ...] = ()

    def mean(self, kind: str, column: str) -> float:
        """Over the frames of a kind in which it was measured; NaN if in none."""
        values = np.array([getattr(frame, column) for frame in self.frames if frame.kind == kind], np.float64)
        return float(np.nanmean(values)) if np.isfinite(values).any() else NAN

    def means(self, kind: str) -> dict[str, float]:
        """All columns."""
        return {column: self.mean(kind, column) for column in COLUMNS}


def report_inversion(
    aligned: AlignedClip,
    inverted: InvertedClip,
    generator: Generator,
    instruments: Instruments,
    settings: ReportSettings | None = None,
    *,
    probe: EditDirection | None = None,
    trajectory: LatentTrajectory | None = None,
    progress: Progress = silent,
) -> InversionReport:
    """Compare the faces that codes make with the frames that they were found for.

    Args:
        aligned: the clip of the codes.
        instruments: what measures.
        probe: a shipped direction of `editability.PROBES`; None leaves editability out.
        trajectory: fitted to the codes: then frames between keyframes are measured, too.
        progress: called after each frame with crop and reconstruction side by side; may raise to cancel.
    Raises:
        ValueError: codes, trajectory, clip and generator do not belong together.
    """
    settings = settings or ReportSettings()
    check_family("The codes", inverted.family, generator.family)
    if inverted.frame_indices.max() >= aligned.clip.num_frames:
        raise ValueError(
            f"The codes reach frame {inverted.frame_indices.max()}, but the clip has {aligned.clip.num_frames} frames. "
            "Connect the clip that they were found for."
        )
    if trajectory is not None:
        check_family("The trajectory", trajectory.family, generator.family)
    notes = _notes(aligned, inverted, instruments, generator, probe)
    if any("does not fit" in note for note in notes):
        probe = None
    with reuse_large_blocks():
        run = _Run(aligned, inverted, generator, instruments, settings, probe, trajectory, progress)
        frames, shown = run.measure()
    names = {
        "perceptual": "none" if instruments.perceptual is None else instruments.perceptual.name,
        "identity": "none" if instruments.identity is None else instruments.identity.name,
        "expressions": "none" if instruments.landmarker is None else "mediapipe",
    }
    label = "none" if run.reference is None or probe is None else f"{probe.name} ±{settings.strength:g}"
    return InversionReport(frames, shown, run.shake(), names, label, run.reference, tuple(notes))


def _notes(
    aligned: AlignedClip,
    inverted: InvertedClip,
    instruments: Instruments,
    generator: Generator,
    probe: EditDirection | None,
) -> list[str]:
    notes = []
    if instruments.identity is not None and instruments.identity.name == inverted.report.get("identity"):
        notes.append(
            f"{instruments.identity.name} was part of the loss, so its cosine flatters: choose another embedder."
        )
    if inverted.report.get("source") not in (None, aligned.clip.clip_id):
        notes.append("The codes were found for another clip.")
    if probe is not None:
        try:
            check_direction_fits(probe, torch.Size((generator.num_ws, generator.w_dim)), generator.family)
        except ValueError as reason:
            notes.append(f"The probe {probe.name!r} does not fit this generator: {reason}")
    return notes


class _Run:
    """One pass over the frames."""

    def __init__(
        self,
        aligned: AlignedClip,
        inverted: InvertedClip,
        generator: Generator,
        instruments: Instruments,
        settings: ReportSettings,
        probe: EditDirection | None,
        trajectory: LatentTrajectory | None,
        progress: Progress,
    ) -> None:
        self._aligned, self._instruments, self._progress = aligned, instruments, progress
        self._size = min(settings.size, generator.resolution)
        self._raw, self._tuning = generator, inverted.tuning
        self._tuned: tuple[int, Generator] | None = None
        self._space = measure_code_space(generator)
        chosen = spread(len(inverted.times), settings.keyframes or len(inverted.times))
        self._codes = {int(inverted.frame_indices[k]): inverted.w_plus[k] for k in chosen}
        self._keyframes = set(self._codes)
        if trajectory is not None and settings.between:
            self._codes |= _codes_between(aligned, inverted, trajectory, settings.between)
        has_probe = probe is not None and instruments.landmarker is not None
        self._probe = Probe(probe, settings.strength) if probe is not None and has_probe else None
        self._reference_codes = reference_codes(generator) if has_probe else torch.empty(0)
        self._total, self._done = len(self._codes) + len(self._reference_codes), 0
        self._displaced: list[tuple[float, np.ndarray]] = []
        self.reference: ProbeEffect | None = None

    @torch.no_grad()
    def measure(self) -> tuple[tuple[FrameQuality, ...], tuple[ShownFrame, ...]]:
        """All frames in the order of time."""
        self.reference = self._measure_reference()
        order = sorted(self._codes)
        keyframes = [frame for frame in order if frame in self._keyframes]
        show = {keyframes[i] for i in spread(len(keyframes), SHOWN)}
        frames: list[FrameQuality] = []
        shown: list[ShownFrame] = []
        for frame in order:
            quality, pair, edited = self._measure_frame(frame)
            frames.append(quality)
            if frame in show:
                shown.append(ShownFrame(quality, pair.crop_bytes, pair.image_bytes, edited))
            self._done += 1
            beside = np.concatenate([pair.crop_bytes, pair.image_bytes], axis=1)
            self._progress(self._done, self._total, beside)
        return tuple(frames), tuple(shown)

    def shake(self) -> float:
        """Of the landmarks of all frames in which both faces were found."""
        times = np.array([time for time, _ in self._displaced])
        return shake(np.array([error for _, error in self._displaced]), times) if len(times) > 2 else NAN

    def _measure_frame(self, frame: int) -> tuple[FrameQuality, Pair, np.ndarray | None]:
        code, time_s = self._codes[frame], float(self._aligned.clip.frame_times[frame])
        generator = self._generator_at(time_s)
        crop = crop_clip(self._aligned, [frame], self._size)
        pair = look_at(crop, self._render(generator, code), self._instruments)
        values = measure_pair(pair, self._instruments) | measure_code(code, self._space)
        if pair.landmark_error is not None:
            self._displaced.append((time_s, pair.landmark_error))
        edited = None
        if frame in self._keyframes and self._probe is not None and self.reference is not None and pair.image_face:
            edited, effect = self._probed(generator, code, pair)
            values["editability"] = effect.editability(self.reference)
        kind = KEYFRAME if frame in self._keyframes else BETWEEN
        return FrameQuality(frame, time_s, kind, **values), pair, edited

    def _generator_at(self, time_s: float) -> Generator:
        """With the weights of this moment; frames come in the order of time, so each set is put in place once."""
        number = -1 if self._tuning is None else int(self._tuning.number_at(np.asarray([time_s]))[0])
        if self._tuned is None or self._tuned[0] != number:
            self._tuned = (number, with_tuning(self._raw, tuning_at(self._tuning, time_s)))
        return self._tuned[1]

    def _measure_reference(self) -> ProbeEffect | None:
        effects = []
        for code in self._reference_codes:
            image = self._render(self._raw, code)
            pair = look_at(image, image, self._instruments)
            if pair.image_face is not None:
                effects.append(self._probed(self._raw, code, pair)[1])
            self._done += 1
            self._progress(self._done, self._total, pair.image_bytes)
        return mean_effect(effects)

    def _probed(self, generator: Generator, code: Tensor, pair: Pair) -> tuple[np.ndarray, ProbeEffect]:
        """The picture of the edited code, and what the edit did."""
        assert self._probe is not None and pair.image_face is not None
        edited, sign = self._probe.edited(code, pair.image_face, generator.family)
        picture = network_to_bytes(self._render(generator, edited))[0]
        face = self._instruments.face(picture)
        kept = self._instruments.same_person(pair.image_bytes, pair.image_face, picture, face)
        return picture, self._probe.effect(pair.image_face, face, sign, kept)

    def _render(self, generator: Generator, code: Tensor) -> Tensor:
        return generator.synthesize(code[None].to(generator.device), size=self._size).float().cpu()


def _codes_between(
    aligned: AlignedClip, inverted: InvertedClip, trajectory: LatentTrajectory, most: int
) -> dict[int, Tensor]:
    """Codes of the trajectory at frames that are no keyframes and show the face."""
    in_view, times = aligned.track.in_view, aligned.clip.frame_times
    first, last = int(inverted.frame_indices.min()), int(inverted.frame_indices.max())
    free = [i for i in range(first, last + 1) if in_view[i]]
    free = np.setdiff1d(free, inverted.frame_indices).tolist()
    if not free:
        return {}
    chosen: Sequence[int] = [int(free[i]) for i in spread(len(free), most)]
    codes = solve_at_times(trajectory, times[list(chosen)]).w_plus[:]
    return dict(zip(chosen, codes, strict=True))
