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
