"""The steps of the command line: from options and values to values, the same core calls that the nodes make."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import editing
from .artifacts import load_artifact
from .blending import BlendSettings
from .blending.several import on_frames_of
from .blending.textured import TexturedFaces
from .checkpoints.load import load_generator, user_cache_dir
from .checks import check_family
from .cli_inversion_options import invert_settings
from .cli_progress import StepProgress
from .editing.latent import check_direction_fits
from .export import ExportedVideo, export_video
from .faces.framing import AlignSettings, align_as_asked, quad_from_text
from .faces.hints import hint_from_boxes, hint_from_mask, hint_from_point, numbers_in, point_from_text
from .faces.landmarks import FaceLandmarker
from .faces.quality import alignment_report
from .faces.segmenter import FaceSegmenter
from .generators import Generator
from .generators.protocol import Compilable
from .inversion import IdentityNetwork, PerceptualDistance, invert_clip, load_perceptual
from .inversion.encoders import load_encoder
from .layout import network_to_bytes, network_to_pictures
from .model_files import find_identity, find_landmarker, find_perceptual, find_points
from .picture_files import read_mask, read_picture
from .rendering import FaceFrames, RenderedFaces
from .types import AlignedClip, EditedLatent, FaceTexture, InvertedClip, LatentTrajectory, TrajectorySample
from .video import FileClip, VideoWriter

MODEL_FOLDERS = ("stylegan2", "mediapipe", "lpips", "latent_directions")
"""Subfolders of a ComfyUI models folder in which `--models` is searched as well."""


class Workplace:
    """Device, folders and the generator, which is loaded once for all steps and clips."""

    def __init__(self, options: argparse.Namespace) -> None:
        roots = [Path(folder).expanduser() for folder in options.models]
        self.folders = tuple(folder for root in roots for folder in (root, *(root / name for name in MODEL_FOLDERS)))
        self.cache_dir = Path(options.cache).expanduser() if options.cache else user_cache_dir()
        self.device = _device(options.device)
        self.quiet = bool(options.quiet)
        self.seconds: dict[str, float] = {}
        self._named, self._compiles = options.generator, bool(options.compile)
        self._generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        if self._generator is None:
            path = Path(self._named).expanduser() if self._named else None
            self._generator = load_generator(
                path, folders=self.folders, cache_dir=self.cache_dir / "generators", device=self.device
            )
            if self._compiles and isinstance(self._generator, Compilable):
                self._generator.compile_synthesis()
        return self._generator

    def perceptual(self) -> PerceptualDistance:
        """The perceptual loss on the device."""
        return load_perceptual(find_perceptual(self.folders), self.device)

    def identity(self) -> IdentityNetwork | None:
        """The face embedder on the device, if its file is there."""
        path = find_identity(self.folders)
        if path is None:
            self.say("note: no face embedder was found (see the README): the faces will resemble the person less.")
            return None
        return IdentityNetwork(path, self.device)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[StepProgress]:
        """Show the progress of a step and remember how long it took."""
        with StepProgress(name, quiet=self.quiet) as progress:
            yield progress
        self.seconds[name] = round(progress.seconds, 3)

    def say(self, text: str) -> None:
        """A line for the user, on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device is cuda, but PyTorch sees no CUDA device here. Use --device cpu or auto.")
    return name


def align_settings(options: argparse.Namespace) -> AlignSettings:
    """What the options ask of the alignment.

    Raises:
        ValueError: the quad cannot be read.
    """
    return AlignSettings(
        framing=options.framing,
        crop_size=options.crop_size,
        scale=options.crop_scale,
        smoothing=options.smoothing,
        pick=options.face,
        face_index=options.face_index,
        search=options.search,
        quad=quad_from_text(options.quad),
        least_found=options.least_found,
        edit_profiles=options.edit_profiles,
    )


def align(options: argparse.Namespace, place: Workplace, path: str) -> AlignedClip:
    """Follow the face through a video file and say how that went."""
    settings = align_settings(options)
    clip = FileClip(Path(path), start_s=options.start, duration_s=options.duration)
    hint = _hint(options, clip)
    with place.step("align") as progress:
        aligned = align_as_asked(
            clip,
            settings,
            lambda: FaceLandmarker(find_landmarker(place.folders)),
            hint=hint,
            points_path=find_points(place.folders),
            progress=progress,
        )
    place.say(alignment_report(aligned))
    return aligned


def _hint(options: argparse.Namespace, clip: FileClip) -> np.ndarray | None:
    if options.face_mask:
        return hint_from_mask(read_mask(options.face_mask), clip.num_frames, clip.height, clip.width)
    if options.box:
        box = numbers_in(options.box)
        if len(box) != 4:
            raise ValueError(f"--box should be left, top, right, bottom in pixels, but is {options.box!r}.")
        return hint_from_boxes(np.array(box), clip.num_frames)
    point = point_from_text(options.point)
    return None if point is None else hint_from_point(*point, clip.height, clip.width)


def invert(options: argparse.Namespace, place: Workplace, aligned: AlignedClip) -> InvertedClip:
    """Find the codes of the keyframes; finished ones are found again in the cache."""
    settings = invert_settings(options)
    perceptual, generator = place.perceptual(), place.generator
    encoder = None
    if options.encoder:
        encoder = load_encoder(options.encoder, kind=options.encoder_kind, device=generator.device)
    with place.step("invert") as progress:
        return invert_clip(
            aligned,
            generator,
            settings,
            perceptual=perceptual,
            identity=place.identity(),
            encoder=encoder,
            expressions=editing.expression_directions(generator.family),
            cache_dir=place.cache_dir / "keyframes",
            progress=progress,
        )


def faces_of(options: argparse.Namespace, place: Workplace, sample: TrajectorySample) -> RenderedFaces:
    """The faces of a sample, made when they are read."""
    check_family("The sample", sample.family, place.generator.family)
    return RenderedFaces(place.generator, sample, options.size or place.generator.resolution)


def render(options: argparse.Namespace, place: Workplace, sample: TrajectorySample) -> int:
    """Write the faces as a video, or as numbered PNG files if `--out` has no file ending."""
    faces, out = faces_of(options, place, sample), Path(options.out)
    count = faces.num_frames
    with place.step("render") as progress, torch.no_grad():
        if out.suffix:
            with VideoWriter(out, faces.fps, (faces.size, faces.size)) as writer:
                for start in range(count):
                    writer.write(network_to_pictures(faces.read(start, start + 1)).cpu())
                    progress(start + 1, count)
        else:
            out.mkdir(parents=True, exist_ok=True)
            for start in range(count):
                Image.fromarray(network_to_bytes(faces.read(start, start + 1))[0]).save(out / f"{start:05d}.png")
                progress(start + 1, count)
    return count


def blend_settings(options: argparse.Namespace) -> BlendSettings:
    """What the options ask of the blending.

    Raises:
        ValueError: a value makes no sense.
    """
    return BlendSettings(
        mode=options.mode,
        region=options.region,
        dilate=options.dilate,
        feather=options.feather,
        background=options.background,
        join=options.join,
        keep_occluders=options.keep_occluders,
        detail_match=not options.no_detail_match,
    )


def blend(
    options: argparse.Namespace, place: Workplace, aligned: AlignedClip, sample: TrajectorySample, out: Path
) -> ExportedVideo:
    """Render the faces into their frames and write the video."""
    settings = blend_settings(options)
    sound = None if options.no_sound else aligned.clip
    if options.onto is not None:
        aligned = on_frames_of(aligned, FileClip(Path(options.onto)))
    faces = textured(options, aligned, faces_of(options, place, sample))
    segmenter: contextlib.AbstractContextManager[FaceSegmenter | None] = contextlib.nullcontext()
    if options.segmenter is not None:
        segmenter = FaceSegmenter(options.segmenter)
    with place.step("blend") as progress, torch.no_grad(), segmenter as finder:
        return export_video(
            out, aligned, faces, settings, finder=finder, sound=sound, crf=options.crf, progress=progress
        )


def textured(options: argparse.Namespace, aligned: AlignedClip, faces: FaceFrames) -> FaceFrames:
    """The faces with the texture of `--texture`, or as they are.

    Raises:
        ValueError: the strength makes no sense, or the texture was made for other landmarks.
    """
    if getattr(options, "texture", None) is None:
        return faces
    if not 0 <= options.texture_strength <= 1:
        raise ValueError(f"--texture-strength should be 0 to 1, but is {options.texture_strength:g}.")
    texture = load_artifact(options.texture, FaceTexture)
    return TexturedFaces(faces, aligned, texture, strength=options.texture_strength)


def parse_edit(text: str) -> tuple[str, float, str]:
    """`"smile=3@0-7"` to ("smile", 3.0, "0-7"); without @ the layers are "all".

    Raises:
        ValueError: there is no "=", or the strength is no number.
    """
    name, equals, rest = text.rpartition("=")
    number, _, layers = rest.partition("@")
    try:
        strength = float(number)
    except ValueError:
        equals = ""
    if not equals or not name or not math.isfinite(strength):
        raise ValueError(f"--edit should be NAME=STRENGTH or NAME=STRENGTH@LAYERS, such as smile=3, but is {text!r}.")
    return name, strength, layers or "all"


def check_edits(options: argparse.Namespace, place: Workplace) -> None:
    """Refuse edits that the generator cannot take, before anything long is done.

    Raises:
        ValueError: a direction or layers do not fit.
        FileNotFoundError: there is no such direction.
    """
    shape = torch.Size((place.generator.num_ws, place.generator.w_dim))
    for name, _strength, layers in [parse_edit(text) for text in (*options.edit, *options.later)]:
        direction = editing.load_direction(name, place.folders, family=place.generator.family)
        editing.layer_mask(layers, shape[0])
        check_direction_fits(direction, shape, place.generator.family)


def edit(
    options: argparse.Namespace, place: Workplace, latent: Any, aligned: AlignedClip | None = None
) -> EditedLatent:
    """Apply the picture, then each direction in the order given."""
    edits = [parse_edit(text) for text in options.edit]
    edited = editing.first_latent(latent)
    if options.picture:
        if aligned is None:
            raise ValueError("--picture needs --aligned: the alignment says what the first face looked like before.")
        check_family("The latent", edited.family, place.generator.family)
        pixels = read_picture(options.picture)
        with place.step("picture") as progress:
            edited = editing.edit_from_image(
                edited,
                pixels,
                aligned,
                place.generator,
                perceptual=place.perceptual(),
                strength=options.picture_strength,
                codes=editing.codes_of(latent, aligned),
                progress=progress,
            )
    for name, strength, layers in edits:
        direction = editing.load_direction(name, place.folders, family=place.generator.family)
        edited = editing.apply_direction(edited, direction, strength, layers=layers)
    return edited


def later_edit(options: argparse.Namespace, place: Workplace, trajectory: LatentTrajectory) -> EditedLatent:
    """What the edit becomes later: the directions of `--later`, on the code as inverted."""
    asked = argparse.Namespace(edit=options.later, picture=None)
    return edit(asked, place, trajectory)
