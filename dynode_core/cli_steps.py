"""The steps of the command line: from options and values to values, the same core calls that the nodes make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from . import editing, ode
from .artifacts import load_artifact
from .blending import BlendSettings
from .checkpoints.load import load_generator
from .checks import check_family
from .cli_progress import StepProgress
from .export import ExportedVideo, export_video
from .faces.align import align_clip
from .faces.landmarks import FaceLandmarker
from .generators import Generator
from .inversion import InversionSettings, invert_clip
from .layout import bytes_to_pictures
from .model_files import find_landmarker
from .rendering import RenderedFaces
from .types import AlignedClip, EditedLatent, InvertedClip, LatentTrajectory, TrajectorySample
from .video import FileClip


class Workplace:
    """Device, folders and the generator, which is loaded once for all steps and clips."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folders = tuple(Path(folder).expanduser() for folder in options.models)
        self.cache_dir = Path(options.cache).expanduser()
        self.device = _device(options.device)
        self.quiet = bool(options.quiet)
        self.seconds: dict[str, float] = {}
        self._named = options.generator
        self._generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        if self._generator is None:
            path = Path(self._named).expanduser() if self._named else None
            self._generator = load_generator(path, folders=self.folders, cache_dir=self.cache_dir, device=self.device)
        return self._generator

    def step(self, name: str) -> StepProgress:
        return StepProgress(name, quiet=self.quiet)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device is cuda, but PyTorch sees no CUDA device here. Use --device cpu or auto.")
    return name


def align(options: argparse.Namespace, place: Workplace, path: str) -> AlignedClip:
    """Follow the face through a video file."""
    clip = FileClip(Path(path), start_s=options.start, duration_s=options.duration)
    with place.step("align") as progress, FaceLandmarker(find_landmarker(place.folders)) as landmarker:
        aligned = align_clip(
            clip,
            landmarker,
            crop_size=options.crop_size,
            center_sigma=1.0 * options.smoothing,
            axes_sigma=3.0 * options.smoothing,
            pick=options.face,
            face_index=options.face_index,
            progress=progress,
        )
    place.seconds["align"] = progress.seconds
    return aligned


def invert(options: argparse.Namespace, place: Workplace, aligned: AlignedClip) -> InvertedClip:
    ...


def fit(options: argparse.Namespace, place: Workplace, inverted: InvertedClip) -> LatentTrajectory:
    ...


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
    if not equals or not name:
        raise ValueError(f"--edit should be NAME=STRENGTH or NAME=STRENGTH@LAYERS, such as smile=3, but is {text!r}.")
    return name, strength, layers or "all"


def edit(
    options: argparse.Namespace, place: Workplace, latent: Any, aligned: AlignedClip | None = None
) -> EditedLatent:
    """Apply the picture, then each direction in the order given."""
    edits = [parse_edit(text) for text in options.edit]
    edited = latent if isinstance(latent, EditedLatent) else editing.first_latent(latent)
    if options.picture:
        if aligned is None:
            raise ValueError("--picture needs --aligned: the alignment says what the first face looked like before.")
        check_family("The latent", edited.family, place.generator.family)
        with Image.open(options.picture) as picture:
            pixels = bytes_to_pictures(_rgb(picture))[None]
        with place.step("picture") as progress:
            edited = editing.edit_from_image(
                edited, pixels, aligned, place.generator, options.picture_strength, progress=progress
            )
    for name, strength, layers in edits:
        direction = editing.load_direction(name, folders=place.folders, generator=place.generator)
        edited = editing.apply_direction(edited, direction, strength, layers=layers)
    return edited
