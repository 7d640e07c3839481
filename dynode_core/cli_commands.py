"""The commands of the command line: read files, take steps, write files and the report."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import __version__, ode
from . import cli_path_steps as path_steps
from . import cli_steps as steps
from .artifacts import load_artifact, save_artifact, save_direction
from .checkpoints.load import convert_checkpoint
from .cli_checks import check_run, check_solve
from .cli_steps import Workplace
from .comparison import draw_comparison, report_text
from .editing import NetworkEdit, load_direction
from .export import ExportedVideo
from .families import UNKNOWN_W
from .model_files import GENERATOR, find_model
from .report_files import write_report
from .types import AlignedClip, EditedLatent, InvertedClip, LatentTrajectory, TrajectorySample


def run(options: argparse.Namespace) -> None:
    """The whole way for one or more clips."""
    place = Workplace(options)
    targets = _targets(options.clips, options.out)
    check_run(options, place)
    reports = []
    for clip, out in zip(options.clips, targets, strict=True):
        if len(targets) > 1:
            place.say(f"{clip} -> {out}")
        place.seconds.clear()
        reports.append(_run_one(options, place, clip, out))
        print(out)
    if options.report:
        write_report(Path(options.report), reports[0] if len(reports) == 1 else reports)


def _run_one(options: argparse.Namespace, place: Workplace, clip: str, out: Path) -> dict[str, Any]:
    aligned = steps.align(options, place, clip)
    inverted = steps.invert(options, place, aligned)
    trajectory = path_steps.fit(options, place, inverted)
    _plot(options, trajectory)
    edited = steps.edit(options, place, trajectory, aligned) if options.edit or options.picture else None
    later = steps.later_edit(options, place, trajectory) if options.later else None
    sample = path_steps.solve(options, place, trajectory, [edited], later)[0]
    exported = steps.blend(options, place, aligned, sample, out)
    return _report(place, clip, aligned, inverted, trajectory, sample, exported)


def _targets(clips: list[str], out: str) -> list[Path]:
    """One output file per clip: `out` itself, or files in the folder `out` when there are several clips."""
    if len(clips) == 1 and Path(out).suffix:
        return [Path(out)]
    if Path(out).suffix:
        raise ValueError(f"--out should be a folder when there are {len(clips)} clips, but is {out!r}.")
    targets = [Path(out) / f"{Path(clip).stem}.mp4" for clip in clips]
    if len(set(targets)) < len(targets):
        raise ValueError(
            "Two clips have the same name and would overwrite each other's result. Run them one at a time."
        )
    return targets


def _report(
    place: Workplace,
    clip: str,
    aligned: AlignedClip,
    inverted: InvertedClip,
    trajectory: LatentTrajectory,
    sample: TrajectorySample,
    exported: ExportedVideo,
) -> dict[str, Any]:
    track = aligned.track
    return {
        "version": __version__,
        "clip": str(clip),
        "frames": aligned.clip.num_frames,
        "size": [aligned.clip.width, aligned.clip.height],
        "fps": str(aligned.clip.fps),
        "frames_without_face": np.flatnonzero(~track.detected),
        "frames_left_alone": np.flatnonzero(~track.in_view),
        "shots": track.shots,
        "keyframes": [int(i) for i in inverted.frame_indices],
        "loss": inverted.loss,
        "inversion": dict(inverted.report),
        "trajectory": dict(trajectory.certificate),
        "edits": list(sample.edits),
        "output": {
            "path": str(exported.path),
            "frames": exported.num_frames,
            "fps": str(exported.fps),
            "sound": exported.sound,
            "nfe": sample.nfe,
            "solver_status": sample.status,
        },
        "seconds": dict(place.seconds),
        "device": place.device,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def align(options: argparse.Namespace) -> None:
    """Clip to alignment."""
    _save(steps.align(options, Workplace(options), options.clip), options)


def invert(options: argparse.Namespace) -> None:
    """Alignment to codes."""
    aligned = load_artifact(options.aligned, AlignedClip)
    _save(steps.invert(options, Workplace(options), aligned), options)


def fit(options: argparse.Namespace) -> None:
    """Codes to trajectory."""
    trajectory = path_steps.fit(options, Workplace(options), load_artifact(options.codes, InvertedClip))
    _plot(options, trajectory)
    _save(trajectory, options)


def edit(options: argparse.Namespace) -> None:
    """Trajectory, codes or latent to latent."""
    if not options.edit and not options.picture:
        raise ValueError("Nothing to edit: give --edit NAME=STRENGTH or --picture PNG.")
    latent = load_artifact(options.latent, (LatentTrajectory, InvertedClip, EditedLatent))
    aligned = load_artifact(options.aligned, AlignedClip) if options.aligned else None
    _save(steps.edit(options, Workplace(options), latent, aligned), options)


def solve(options: argparse.Namespace) -> None:
    """Trajectory, and latents if given, to one sample per latent."""
    targets = _sample_targets(options.latent, Path(options.out))
    check_solve(options)
    trajectory = load_artifact(options.trajectory, LatentTrajectory)
    latents = [load_artifact(path, EditedLatent) for path in options.latent] or [None]
    later = load_artifact(options.later, EditedLatent) if options.later else None
    samples = path_steps.solve(options, Workplace(options), trajectory, latents, later)
    for sample, target in zip(samples, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        save_artifact(sample, target)
        print(target)


def _sample_targets(latents: list[str], out: Path) -> list[Path]:
    """`out` itself, or files in the folder `out`, named after the latents, when there are several."""
    if len(latents) < 2:
        return [out]
    if out.suffix:
        raise ValueError(f"--out should be a folder when there are {len(latents)} latents, but is {str(out)!r}.")
    targets = [out / f"{Path(latent).stem}.safetensors" for latent in latents]
    if len(set(targets)) < len(targets):
        raise ValueError("Two latents have the same name and would overwrite each other's result. Rename one.")
    return targets


def compare(options: argparse.Namespace) -> None:
    """Codes to a report, on the screen and as JSON, and a picture if asked for."""
    inverted = load_artifact(options.codes, InvertedClip)
    latent = load_artifact(options.latent, EditedLatent) if options.latent else None
    aligned = load_artifact(options.aligned, AlignedClip) if options.aligned else None
    found = path_steps.compare(options, Workplace(options), inverted, latent, aligned)
    print(report_text(found))
    write_report(Path(options.out), found.facts())
    if options.sheet:
        Image.fromarray(draw_comparison(found)).save(options.sheet)


def render(options: argparse.Namespace) -> None:
    """Sample to pictures of faces."""
    steps.render(options, Workplace(options), load_artifact(options.sample, TrajectorySample))
    print(options.out)


def blend(options: argparse.Namespace) -> None:
    """Alignment and sample to the finished video."""
    aligned = load_artifact(options.aligned, AlignedClip)
    sample = load_artifact(options.sample, TrajectorySample)
    steps.blend(options, Workplace(options), aligned, sample, Path(options.out))
    print(options.out)


def convert(options: argparse.Namespace) -> None:
    """Foreign generator or direction file to safetensors."""
    out = Path(options.out)
    place = Workplace(options)
    source = Path(options.file) if options.file else find_model(GENERATOR, place.folders)
    if not source.is_file():
        raise FileNotFoundError(f"There is no file {source}.")
    if options.holds == "direction" or source.suffix == ".npy":
        family = place.generator.family if options.generator else UNKNOWN_W
        direction = load_direction(source, family=family)
        if isinstance(direction, NetworkEdit):
            raise ValueError(f"{source.name} holds an edit network, which is no direction: use the file as it is.")
        save_direction(direction, out)
    else:
        convert_checkpoint(source, out)
    print(out)


def _save(value: Any, options: argparse.Namespace) -> None:
    save_artifact(value, options.out)
    print(options.out)


def _plot(options: argparse.Namespace, trajectory: LatentTrajectory) -> None:
    if options.plot:
        Image.fromarray(ode.plot_trajectory(trajectory)).save(options.plot)
