"""Options of the command line that concern the path: fitting, solving and comparing it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from . import ode

CLOSED_FORM, PAPER, RELEASED = "closed", "paper", "released"
IN_FULL = "1"
FITS = (CLOSED_FORM, PAPER, RELEASED)


def add_choice(group: Any, flag: str, choices: Sequence[str], what: str, *, default: str | None = None) -> None:
    """An option with many or long choices: they are listed in the help and not in the usage line."""
    listed = ", ".join(f"'{choice}'" if " " in choice else choice for choice in choices)
    group.add_argument(
        flag, choices=tuple(choices), default=default or choices[0], metavar="NAME", help=f"{what}: {listed}"
    )


def field_options(parser: argparse.ArgumentParser) -> None:
    """How the path is fitted, and by training if asked for."""
    group = parser.add_argument_group("trajectory")
    group.add_argument(
        "--fit",
        choices=FITS,
        default=CLOSED_FORM,
        help="closed form, or trained by gradients as in the paper or as in the authors' released program",
    )
    group.add_argument("--path-smoothing", type=float, metavar="X", help="strength of smoothing; measured if left out")
    group.add_argument(
        "--state-dependence", type=float, metavar="X", default=0.0, help="0 carries an edit unchanged, 1 lets it drift"
    )
    group.add_argument("--cuts", choices=("auto", "none"), default="auto", help="find changes of shot, or not")
    add_choice(group, "--reference", ode.REFERENCES, "curve through the keyframes that the field is fitted to")
    group.add_argument("--seed", type=int, metavar="N", default=0, help="of the random parts of the vector field")
    group.add_argument("--rank", type=int, metavar="N", default=64, help="axes of the space of the path, at most")
    _training_options(parser)


def fit_options(parser: argparse.ArgumentParser) -> None:
    """How a fitted path is checked and shown."""
    group = parser.add_argument_group("after the fit")
    group.add_argument(
        "--no-held-out", action="store_true", help="skip the check that fits every other keyframe and predicts the rest"
    )
    group.add_argument("--plot", metavar="PNG", help="also draw the path")


def _training_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training, with --fit paper or released")
    group.add_argument("--steps", type=int, metavar="N", default=5000, help="gradient steps, at most")
    group.add_argument("--learning-rate", type=float, metavar="X", default=0.01, help="of Adam")
    group.add_argument("--batch", type=int, metavar="N", default=8, help="keyframes per step beside the first")
    group.add_argument("--hidden", type=int, metavar="N", default=256, help="units of each hidden layer")
    group.add_argument("--no-time", action="store_true", help="do not show the time to the network")
    group.add_argument("--adjoint", action="store_true", help="gradients by the adjoint equation: constant memory")
    group.add_argument(
        "--latent-weight", type=float, metavar="X", default=1.0, help="weight of the difference of the codes"
    )
    group.add_argument(
        "--image-weight", type=float, metavar="X", default=0.0, help="weight of the difference of rendered faces"
    )
    group.add_argument(
        "--feature-weight", type=float, metavar="X", default=0.0, help="weight of their perceptual distance"
    )
    group.add_argument(
        "--picture-size", type=int, choices=(64, 128, 256, 512), default=128, help="side of those faces in pixels"
    )


def solve_options(parser: argparse.ArgumentParser) -> None:
    """Which times, how they are solved for, and what happens to an edit on the way."""
    group = parser.add_argument_group("times")
    group.add_argument(
        "--times",
        metavar="TEXT",
        default="same",
        help="same | x4 | '120 frames' | '60 fps' | '0, 0.1, 0.25' (seconds) | a curve such as ping-pong",
    )
    group.add_argument("--bend", type=float, metavar="X", default=1.0, help="how far eases and ramps bend, 0 to 1")
    group.add_argument(
        "--ramp-speed", type=float, metavar="X", default=4.0, help="speed at the end of a ramp over that at its start"
    )
    group.add_argument("--slow-motion", action="store_true", help="play more frames longer instead of faster")
    add_choice(group, "--method", ode.METHODS, "solver")
    group.add_argument("--rtol", type=float, metavar="X", default=1e-5, help="relative tolerance")
    group.add_argument("--atol", type=float, metavar="X", default=1e-6, help="absolute tolerance")
    group.add_argument(
        "--faithful", type=float, metavar="X", default=1.0, help="1 keeps every keyframe, 0 only the smooth path"
    )
    group.add_argument(
        "--later-at", type=float, metavar="S", help="second by which the edit has become --later; the end of the clip"
    )
    group.add_argument(
        "--edit-over-time",
        metavar="CURVE",
        default=IN_FULL,
        help="how much of the edit there is when: '0:0, 2.5s:1, end:0.3' (seconds, %%, start or end); 1 is in full",
    )
    group.add_argument("--anchor", type=float, metavar="S", help="second at which the edit is put in; the first frame")
    group.add_argument(
        "--vary", type=float, metavar="X", default=0.0, help="random sway, as a share of how much the codes move"
    )
    group.add_argument("--vary-seconds", type=float, metavar="S", default=0.5, help="time over which the sway changes")
    group.add_argument("--vary-seed", type=int, metavar="N", default=0, help="of the sway")
    group.add_argument(
        "--edit-limit",
        type=float,
        metavar="X",
        default=1.2,
        help="add less of the edit where the clip already goes that way: at most X times the further of both; 0: never",
    )
    group.add_argument(
        "--extrapolate", type=float, metavar="S", default=0.0, help="let motion die away outside the clip; 0: hold it"
    )


def later_edits_option(parser: argparse.ArgumentParser) -> None:
    """For `run`, which applies edits itself."""
    parser.add_argument(
        "--later",
        action="append",
        default=[],
        metavar="NAME=STRENGTH[@LAYERS]",
        help="what the edit becomes by --later-at, gliding there from --edit; may be given several times",
    )


def latent_files_options(parser: argparse.ArgumentParser) -> None:
    """For `solve`, which reads edits from files."""
    parser.add_argument(
        "--latent",
        action="append",
        default=[],
        metavar="FILE",
        help="file made by edit; several are solved in one batch, and --out is then a folder",
    )
    parser.add_argument("--later", metavar="FILE", help="file made by edit: what the edit becomes by --later-at")


def compare_options(parser: argparse.ArgumentParser) -> None:
    """What is held out, and what is compared."""
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--keep-every", type=int, metavar="N", default=2, help="keep one keyframe in N, predict the rest"
    )
    group.add_argument("--irregular", action="store_true", help="keep as many, but chosen at random")
    group.add_argument("--latent", metavar="FILE", help="file made by edit: compare with editing every frame")
    group.add_argument("--aligned", metavar="FILE", help="file made by align: compare pictures with the clip's frames")
    group.add_argument(
        "--pictures", type=int, metavar="N", default=8, help="render so many kept and held-out frames; 0: codes only"
    )
    group.add_argument("--size", type=int, choices=(128, 256, 512), default=256, help="side of those faces in pixels")
    group.add_argument("--sheet", metavar="PNG", help="also draw the paths, the errors and the faces")
