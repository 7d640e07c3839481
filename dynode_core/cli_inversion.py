"""Commands of the command line around codes: those of other programs, pivotal tuning, the report."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

from PIL import Image

from .artifacts import load_artifact, save_artifact
from .cli_steps import Workplace
from .editing.directions import shipped_directions
from .faces.landmarks import FaceLandmarker
from .inversion.code_files import describe_codes, load_codes
from .inversion.foreign_codes import AUTOMATIC, LAYOUTS, FramesOfCodes
from .inversion.pivotal import PivotalSettings, tune_to_pivots
from .metrics.editability import DEFAULT_PROBE, PROBES
from .metrics.frame_quality import Instruments
from .metrics.identity import PIXELS, IdentityEmbedder
from .metrics.inversion_report import ReportSettings, report_inversion
from .metrics.report_drawing import draw_report
from .metrics.report_text import report_facts, report_text
from .model_files import find_landmarker
from .report_files import write_report
from .types import AlignedClip, InvertedClip, LatentTrajectory

NO_PROBE = "none"


def import_options(parser: argparse.ArgumentParser) -> None:
    """What a file of another program does not say."""
    group = parser.add_argument_group("codes of other programs")
    group.add_argument("--aligned", metavar="FILE", help="file made by align, of the clip that they belong to")
    group.add_argument("--layout", choices=LAYOUTS, default=AUTOMATIC, help="how a single table is read")
    group.add_argument("--first-frame", type=int, metavar="N", default=0, help="frame of the first code, from 0")
    group.add_argument("--every", type=int, metavar="N", default=1, help="frames from one code to the next")
    group.add_argument(
        "--fps", type=Fraction, metavar="X", default=Fraction(25), help="frames per second, as 30000/1001"
    )


def import_codes(options: argparse.Namespace) -> None:
    """A file of codes, whoever wrote it, to codes of the generator."""
    place = Workplace(options)
    aligned = load_artifact(options.aligned, AlignedClip) if options.aligned else None
    frames = FramesOfCodes(options.first_frame, options.every, options.fps)
    codes = load_codes(Path(options.codes), place.generator, frames, layout=options.layout, aligned=aligned)
    place.say(describe_codes(codes))
    save_artifact(codes, options.out)
    print(options.out)


def tune_options(parser: argparse.ArgumentParser) -> None:
    """How the generator is tuned to the codes."""
    group, defaults = parser.add_argument_group("pivotal tuning"), PivotalSettings()
    group.add_argument("--keyframes", type=int, metavar="N", default=defaults.keyframes, help="at most so many pivots")
    group.add_argument("--rounds", type=int, metavar="N", default=defaults.rounds, help="visits to each, at most")
    group.add_argument("--rate", type=float, metavar="X", default=defaults.rate, help="learning rate")
    group.add_argument(
        "--target", type=float, metavar="X", default=defaults.target, help="stop at this mean perceptual distance"
    )
    group.add_argument(
        "--locality", type=float, metavar="X", default=defaults.locality_weight, help="weight of keeping other faces"
    )
    group.add_argument("--depth", type=int, metavar="PX", default=defaults.depth, help="tune weights up to this size")
    group.add_argument("--per-shot", action="store_true", help="weights of its own for each shot of the clip")
    group.add_argument("--seed", type=int, metavar="N", default=defaults.seed, help="of the order of the visits")


def tune(options: argparse.Namespace) -> None:
    """Alignment and codes to the same codes with a generator that is tuned to them."""
    settings = PivotalSettings(
        keyframes=options.keyframes,
        rounds=options.rounds,
        rate=options.rate,
        target=options.target,
        locality_weight=options.locality,
        depth=options.depth,
        per_shot=options.per_shot,
        seed=options.seed,
    )
    aligned = load_artifact(options.aligned, AlignedClip)
    codes, place = load_artifact(options.codes, InvertedClip), Workplace(options)
    perceptual, identity = place.perceptual(), place.identity()
    with place.step("tune") as progress:
        result = tune_to_pivots(
            aligned,
            codes,
            place.generator,
            settings,
            perceptual=perceptual,
            identity=identity,
            cache_dir=place.cache_dir / "pivotal",
            progress=progress,
        )
    place.say(result.report)
    save_artifact(result.codes, options.out)
    print(options.out)


def inspect_options(parser: argparse.ArgumentParser) -> None:
    """What the report holds."""
    group, defaults = parser.add_argument_group("report"), ReportSettings()
    group.add_argument("--trajectory", metavar="FILE", help="file made by fit: measures frames between keyframes, too")
    group.add_argument("--embedder", metavar="ONNX", help="face embedder of 112 px crops, other than the optimised one")
    group.add_argument("--embedder-pixels", choices=PIXELS, default=next(iter(PIXELS)), help="what it wants")
    group.add_argument("--probe", choices=(NO_PROBE, *PROBES), default=DEFAULT_PROBE, help="edit that is tried")
    group.add_argument("--strength", type=float, metavar="X", default=defaults.strength, help="of that edit")
    group.add_argument("--keyframes", type=int, metavar="N", default=defaults.keyframes, help="at most; 0: all")
    group.add_argument("--between", type=int, metavar="N", default=defaults.between, help="frames between, at most")
    group.add_argument("--sheet", metavar="PNG", help="also draw clip, codes, edit and charts")


def inspect(options: argparse.Namespace) -> None:
    """Alignment and codes to a report, on the screen and as JSON, and a picture if asked for."""
    settings = ReportSettings(keyframes=options.keyframes, between=options.between, strength=options.strength)
    aligned = load_artifact(options.aligned, AlignedClip)
    codes, place = load_artifact(options.codes, InvertedClip), Workplace(options)
    trajectory = load_artifact(options.trajectory, LatentTrajectory) if options.trajectory else None
    identity = IdentityEmbedder(Path(options.embedder), pixels=options.embedder_pixels) if options.embedder else None
    with FaceLandmarker(find_landmarker(place.folders), max_faces=1) as landmarker, place.step("inspect") as progress:
        found = report_inversion(
            aligned,
            codes,
            place.generator,
            Instruments(place.perceptual(), identity, landmarker),
            settings,
            probe=None if options.probe == NO_PROBE else shipped_directions()[options.probe],
            trajectory=trajectory,
            progress=progress,
        )
    print(report_text(found))
    write_report(Path(options.out), report_facts(found))
    if options.sheet:
        Image.fromarray(draw_report(found)).save(options.sheet)
