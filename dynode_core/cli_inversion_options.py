"""Options of the command line that say how codes are found."""

from __future__ import annotations

import argparse

from .inversion.encoders.networks import KINDS
from .inversion.losses import LossWeights
from .inversion.settings import NEAR_W, QUALITIES, SPACES, InversionSettings

_WEIGHTS = {
    "perceptual": "of the perceptual distance",
    "pyramid": "of the pixels, on four sizes",
    "identity": "of the likeness",
    "eyes_and_mouth": "how much their pixels count beside the cheeks'",
}
"""The loss weights that have an option `--weight-NAME`."""


def invert_options(parser: argparse.ArgumentParser) -> None:
    """How codes are found."""
    group = parser.add_argument_group("inversion")
    group.add_argument("--quality", choices=QUALITIES, default="normal", help="how close the faces must come")
    group.add_argument(
        "--keyframe-every", type=int, default=0, metavar="N", help="every N-th frame; 0 chooses by movement"
    )
    group.add_argument("--max-keyframes", type=int, default=0, metavar="N", help="at most so many; 0: no limit")
    group.add_argument(
        "--loss-target", type=float, metavar="X", default=0.0, help="a keyframe is done below this; 0: all steps"
    )
    group.add_argument("--max-steps", type=int, default=0, metavar="N", help="limit per keyframe; 0: by quality")
    group.add_argument(
        "--no-tuning", action="store_true", help="leave the generator as it is instead of tuning it to the person"
    )
    group.add_argument(
        "--space", choices=SPACES, default=NEAR_W, help="where codes may lie: nearer W edits better, W+ fits closer"
    )
    group.add_argument(
        "--offset-rank",
        type=int,
        default=0,
        metavar="N",
        help="dimensions in which the codes of a shot may differ; 0: any",
    )
    group.add_argument("--encoder", metavar="FILE", help="e4e, pSp or ReStyle (.pt): start from its guesses")
    group.add_argument("--encoder-kind", choices=KINDS, help="its type, if the file does not say it")
    defaults = LossWeights()
    for name, text in _WEIGHTS.items():
        option = f"--weight-{name.replace('_', '-')}"
        group.add_argument(option, type=float, metavar="X", default=getattr(defaults, name), help=f"weight {text}")


def invert_settings(options: argparse.Namespace) -> InversionSettings:
    """What the options ask of the inversion.

    Raises:
        ValueError: a value makes no sense.
    """
    return InversionSettings(
        quality=options.quality,
        keyframe_every=options.keyframe_every,
        max_keyframes=options.max_keyframes,
        loss_target=options.loss_target,
        max_steps=options.max_steps,
        tune=not options.no_tuning,
        space=options.space,
        offset_rank=options.offset_rank,
        weights=LossWeights(**{name: getattr(options, f"weight_{name}") for name in _WEIGHTS}),
    )
