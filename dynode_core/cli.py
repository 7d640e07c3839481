"""The command line: the whole way in one command, or step by step on files. Needs no ComfyUI."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from . import __version__
from . import cli_commands as commands
from .blending.settings import BACKGROUNDS, JOINS, MODES, WHOLE_CROP
from .cli_inversion import import_codes, import_options, inspect, inspect_options, tune, tune_options
from .cli_inversion_options import invert_options
from .cli_path_options import (
    add_choice,
    compare_options,
    field_options,
    fit_options,
    latent_files_options,
    later_edits_option,
    solve_options,
)
from .cli_picture import picture, picture_options, texture_options, transfer, transfer_options
from .faces.detections import SEARCHES
from .faces.framing import FRAMINGS
from .faces.masks import REGIONS
from .faces.quality import LEAST_FOUND
from .faces.tracking import PICKS

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
  python -m dynode_core picture trajectory.safetensors --aligned aligned.safetensors --picture painted.png \\
      --texture texture.safetensors --out latent.safetensors
  python -m dynode_core blend aligned.safetensors sample.safetensors --texture texture.safetensors --out worn.mp4
  python -m dynode_core transfer latent.safetensors other_trajectory.safetensors --out other_latent.safetensors
  python -m dynode_core compare codes.safetensors --aligned aligned.safetensors --out report.json --sheet sheet.png
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
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command, add_options, summary in _COMMANDS:
        sub = subparsers.add_parser(
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
        empty = action.default is None or action.default is False or action.default in ([], "")
        return action.help if empty else super()._get_help_string(action)


def _clip_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("clip and face")
    group.add_argument("--start", type=float, default=0.0, metavar="S", help="begin at this second of the clip")
    group.add_argument("--duration", type=float, metavar="S", help="use this many seconds of the clip")
    add_choice(group, "--framing", FRAMINGS, "what to cut out")
    add_choice(group, "--face", PICKS, "order in which faces are counted")
    group.add_argument("--face-index", type=int, default=0, metavar="N", help="which face in that order")
    pointing = group.add_mutually_exclusive_group()
    pointing.add_argument("--point", metavar="X,Y", default="", help="follow the face at this point of the frame, px")
    pointing.add_argument("--box", metavar="X0,Y0,X1,Y1", default="", help="follow the face in this box, px")
    pointing.add_argument("--face-mask", metavar="PNG", help="follow the face that is painted white in this picture")
    group.add_argument(
        "--quad",
        metavar="NUMBERS",
        default="",
        help="for --framing 'custom quad': left, top, right, bottom of a box, or x, y of the corners top left, bottom "
        "left, bottom right, top right, px",
    )
    add_choice(group, "--search", SEARCHES, "look closer for small, dark and turned faces", default="when needed")
    group.add_argument(
        "--least-found",
        type=float,
        metavar="X",
        default=LEAST_FOUND,
        help="stop if the face is found in a smaller share of the frames that should show it, 0 to 1",
    )
    group.add_argument(
        "--edit-profiles",
        action="store_true",
        help="also edit frames in full profile, which face generators do not know; else they stay as they are",
    )
    group.add_argument(
        "--smoothing", type=float, metavar="X", default=1.0, help="smoothing of the crop's path, 0 for none"
    )
    group.add_argument(
        "--crop-size", type=int, default=512, choices=(256, 512, 1024), help="side of the crops in pixels"
    )
    group.add_argument("--crop-scale", type=float, metavar="X", default=1.0, help="widen the crop of a face")


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
    group.add_argument(
        "--picture-strength", type=float, metavar="X", default=1.0, help="how far to go towards the picture"
    )


def _render_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rendering")
    group.add_argument(
        "--size",
        type=int,
        choices=(64, 128, 256, 512, 1024),
        help="side of the faces; as large as the generator's if left out",
    )


def _blend_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("blending")
    group.add_argument("--mode", choices=MODES, default=MODES[0], help="how faces and frames are joined")
    add_choice(group, "--region", (*REGIONS, WHOLE_CROP), "what may change", default="face and forehead")
    group.add_argument("--dilate", type=float, metavar="X", default=0.0, help="grow the region, in face heights")
    group.add_argument(
        "--feather", type=float, metavar="X", default=0.08, help="width of its soft edge, in face heights"
    )
    group.add_argument("--no-detail-match", action="store_true", help="leave the made face as soft as it is")
    group.add_argument("--join", choices=JOINS, default=JOINS[0], help="how the change meets the frame")
    group.add_argument("--keep-occluders", action="store_true", help="keep what the reconstruction lacks, as a hand")
    group.add_argument(
        "--segmenter", metavar="FILE", help="mediapipe segmentation model: hair, hands and background stay"
    )
    group.add_argument(
        "--onto", metavar="VIDEO", help="for several people: put the face into this result for another face of the clip"
    )
    group.add_argument("--background", choices=BACKGROUNDS, default=BACKGROUNDS[0], help="for times between frames")
    group.add_argument("--crf", type=int, metavar="N", default=16, help="encoder quality, 0 (best, large) to 51")
    group.add_argument("--no-sound", action="store_true", help="leave the sound out")


def _add_general(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("general")
    group.add_argument("--generator", metavar="FILE", help="generator to use instead of the default one")
    group.add_argument(
        "--models", action="append", default=[], metavar="DIR", help="also look for model files here; may be repeated"
    )
    group.add_argument("--cache", metavar="DIR", help="where converted models and finished inversions are kept")
    group.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    group.add_argument(
        "--compile", action="store_true", help="torch.compile the generator: minutes at first, then faster pictures"
    )
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    group.add_argument("--traceback", action="store_true", help="show where an error comes from")


def _positional(*names: str) -> Callable[[argparse.ArgumentParser], None]:
    helps = {
        "clip": "video file",
        "aligned": "file made by align",
        "codes": "file made by invert or import",
        "trajectory": "file made by fit",
        "sample": "file made by solve",
        "latent": "file made by fit, invert or edit",
        "edit": "file made by edit or picture",
        "to": "file of the other clip, made by fit, invert or edit",
        "file": "generator or direction file; the default generator if left out",
    }

    def add(parser: argparse.ArgumentParser) -> None:
        for name in names:
            optional = name == "file"
            parser.add_argument(name, metavar=name.upper(), nargs="?" if optional else None, help=helps[name])

    return add


def _out(text: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--out", required=True, metavar="PATH", help=text)

    return add


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", metavar="CLIP", nargs="+", help="video files")
    parser.add_argument(
        "--out", required=True, metavar="PATH", help="video to write; a folder when there are several clips"
    )
    parser.add_argument(
        "--report", metavar="JSON", help="write what was measured: losses, certificate, seconds per step"
    )


def _edit_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--aligned", metavar="FILE", help="file made by align, needed with --picture")


def _convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--holds", choices=("generator", "direction"), default="generator", help="what the file is")


_ALL = (
    _clip_options,
    invert_options,
    field_options,
    fit_options,
    _edit_options,
    solve_options,
    _render_options,
    _blend_options,
)
_COMMANDS: tuple[tuple[str, Callable[[argparse.Namespace], None], tuple[Callable[..., None], ...], str], ...] = (
    (
        "run",
        commands.run,
        (_run_options, *_ALL, later_edits_option),
        "the whole way: edit or re-time the face in one or more clips",
    ),
    (
        "align",
        commands.align,
        (_positional("clip"), _out("alignment to write"), _clip_options),
        "find and follow the face",
    ),
    (
        "invert",
        commands.invert,
        (_positional("aligned"), _out("codes to write"), invert_options),
        "find the codes of keyframes",
    ),
    (
        "import",
        import_codes,
        (_positional("codes"), _out("codes to write"), import_options),
        "read codes that another program found",
    ),
    (
        "tune",
        tune,
        (_positional("aligned", "codes"), _out("codes to write"), tune_options),
        "tune the generator to the codes (pivotal tuning)",
    ),
    (
        "inspect",
        inspect,
        (_positional("aligned", "codes"), _out("report to write (JSON)"), inspect_options),
        "measure how good the codes are, frame by frame",
    ),
    (
        "fit",
        commands.fit,
        (_positional("codes"), _out("trajectory to write"), field_options, fit_options),
        "fit the differential equation",
    ),
    (
        "edit",
        commands.edit,
        (_positional("latent"), _out("latent to write"), _edit_files, _edit_options),
        "change the first code",
    ),
    (
        "picture",
        picture,
        (_positional("latent"), _out("latent to write"), picture_options),
        "make an edit of a frame that another program edited",
    ),
    (
        "transfer",
        transfer,
        (_positional("edit", "to"), _out("latent to write"), transfer_options),
        "give the edit of one clip to another",
    ),
    (
        "solve",
        commands.solve,
        (
            _positional("trajectory"),
            _out("sample to write; a folder when there are several latents"),
            latent_files_options,
            solve_options,
        ),
        "solve at the wanted times",
    ),
    (
        "compare",
        commands.compare,
        (_positional("codes"), _out("report to write (JSON)"), compare_options, field_options),
        "predict frames that were held out, beside morphing and frame-by-frame editing",
    ),
    (
        "render",
        commands.render,
        (_positional("sample"), _out("video of the faces, or a folder for PNG files"), _render_options),
        "make the faces",
    ),
    (
        "blend",
        commands.blend,
        (_positional("aligned", "sample"), _out("video to write"), _render_options, _blend_options, texture_options),
        "put the faces back into the frames",
    ),
    (
        "convert",
        commands.convert,
        (_positional("file"), _out("safetensors file to write"), _convert_options),
        "convert a generator or a direction to safetensors",
    ),
)
