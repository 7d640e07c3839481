"""The command line: the whole way in one command, or step by step on files. Needs no ComfyUI."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from . import cli_steps as steps

EXIT_INPUT = 2
EXIT_CANCELLED = 130
_EXAMPLES = """\
examples:
  python -m dynode_core run clip.mp4 --edit smile=3 --out smiling.mp4 --report report.json
  python -m dynode_core run clip.mp4 --times x4 --slow-motion --out slow.mp4
  python -m dynode_core run a.mp4 b.mp4 --edit smile=2 --edit yaw=1@0-5 --out results/

  python -m dynode_core align clip.mp4 --out aligned.safetensors
  python -m dynode_core invert aligned.safetensors --out codes.safetensors
  python -m dynode_core fit codes.safetensors --out trajectory.safetensors --plot trajectory.png
  python -m dynode_core edit trajectory.safetensors --edit smile=3 --out latent.safetensors
  python -m dynode_core solve trajectory.safetensors --latent latent.safetensors --times x2 --out sample.safetensors
  python -m dynode_core render sample.safetensors --out faces.mp4
  python -m dynode_core blend aligned.safetensors sample.safetensors --out out.mp4
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 2 bad input (said on stderr), 130 cancelled."""
    options = build_parser().parse_args(arguments)
    try:
        options.command(options)
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return EXIT_CANCELLED
    except (ValueError, OSError, RuntimeError, ImportError) as reason:
        if options.traceback:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return EXIT_INPUT
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m dynode_core",
        description="Edit and re-time the face in a video along a neural ODE in a GAN's latent space.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ComfyUI-DynODE {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command, add_options, summary in _COMMANDS:
        sub = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", formatter_class=_Help
        )
        sub.set_defaults(command=command)
        for add in add_options:
            add(sub)
        _add_general(sub)
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not "(default: None)"."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        empty = action.default is None or action.default is False or action.default == []
        return action.help if empty else super()._get_help_string(action)


def _clip_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("clip and face")
    group.add_argument("--start", type=float, default=0.0, metavar="S", help="begin at this second of the clip")
    group.add_argument("--duration", type=float, metavar="S", help="use this many seconds of the clip")
    group.add_argument("--face", choices=steps.FACE_ORDERS, default=steps.FACE_ORDERS[0], help="order in which faces are counted")
    group.add_argument("--face-index", type=int, default=0, metavar="N", help="which face in that order")
    group.add_argument("--smoothing", type=float, default=1.0, help="smoothing of the crop's path, 0 for none")
    group.add_argument("--crop-size", type=int, default=512, choices=(256, 512, 1024), help="side of the crops in pixels")


def _invert_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inversion")
    group.add_argument("--quality", choices=steps.QUALITIES, default="normal", help="how close the faces must come")
    group.add_argument("--keyframe-every", type=int, default=0, metavar="N", help="every N-th frame; 0 chooses by movement")
    group.add_argument("--max-keyframes", type=int, default=24, metavar="N", help="limit when chosen by movement")
    group.add_argument("--loss-target", type=float, default=0.0, help="a keyframe is done below this; 0: by quality")
    group.add_argument("--max-steps", type=int, default=0, metavar="N", help="limit per keyframe; 0: by quality")
    group.add_argument("--seed", type=int, default=0, help="same seed, same codes")


def _fit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("trajectory")
    group.add_argument("--plot", metavar="PNG", help="also draw the path")


def _edit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("edit")
    group.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="NAME=STRENGTH[@LAYERS]",
        help="add a direction (a shipped name or a file), such as smile=3 or yaw=1@0-7; may be given several times",
    )
    group.add_argument("--picture", metavar="PNG", help="the first face as it should look, framed as the crop")
    group.add_argument("--picture-strength", type=float, default=1.0, help="how far to go towards the picture")


def _solve_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("times")
    group.add_argument(
        "--times",
        default="same",
        help="same | x4 | '120 frames' | '60 fps' | '0, 0.1, 0.25' (seconds)",
    )
    group.add_argument("--slow-motion", action="store_true", help="play more frames longer instead of faster")
    group.add_argument("--method", choices=steps.METHODS, default="dopri5", help="solver")
    group.add_argument("--rtol", type=float, default=1e-5, help="relative tolerance")
    group.add_argument("--atol", type=float, default=1e-6, help="absolute tolerance")
    group.add_argument("--faithful", type=float, default=1.0, help="1 keeps every keyframe, 0 only the smooth path")


def _render_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rendering")
    group.add_argument("--size", type=int, choices=(256, 512, 1024), help="side of the faces; as large as the generator's if left out")


def _blend_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("blending")
    group.add_argument("--mode", choices=steps.BLEND_MODES, default=steps.BLEND_MODES[0], help="how faces and frames are joined")
    group.add_argument("--region", choices=steps.REGIONS, default=steps.REGIONS[0], help="what is replaced")
    group.add_argument("--crf", type=int, default=16, help="encoder quality, 0 (best, large) to 51")
    group.add_argument("--no-sound", action="store_true", help="leave the sound out")
