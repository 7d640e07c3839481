"""What the command line refuses before it does anything: a bad option should not cost the hours of an inversion."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from . import cli_path_steps as path_steps
from . import cli_steps as steps
from .cli_inversion_options import invert_settings
from .cli_path_options import CLOSED_FORM
from .cli_steps import Workplace
from .ode.external import TORCHDIFFEQ_METHODS, import_torchdiffeq

HIGHEST_CRF = 51


def check_run(options: argparse.Namespace, place: Workplace) -> None:
    """Refuse options of `run` that one of its steps would refuse. The generator is loaded only if edits, the size of
    the faces or losses on pictures have to fit it.

    Raises:
        ValueError: a value makes no sense, or does not fit the generator.
        FileNotFoundError: there is no such clip, picture or direction.
        RuntimeError: a package that an option needs is not installed.
    """
    for text in (*options.edit, *options.later):
        steps.parse_edit(text)
    steps.align_settings(options)
    invert_settings(options)
    path_steps.fit_settings(options)
    check_solve(options)
    steps.blend_settings(options)
    _check_number("--picture-strength", options.picture_strength, -math.inf, math.inf)
    _check_number("--crf", options.crf, 0, HIGHEST_CRF)
    _check_number("--seed", options.seed, 0, math.inf)
    trained = options.fit != CLOSED_FORM
    if trained:
        _check_number("--image-weight", options.image_weight, 0, math.inf)
        _check_number("--feature-weight", options.feature_weight, 0, math.inf)
        if options.adjoint:
            import_torchdiffeq()
    named = (options.picture, options.segmenter, options.onto, options.encoder)
    for file in (*options.clips, *filter(None, named)):
        if not Path(file).is_file():
            raise FileNotFoundError(f"There is no file {file}.")
    if options.onto is not None and len(options.clips) > 1:
        raise ValueError("--onto is the result for another face of one clip: run one clip at a time.")
    if options.edit or options.later:
        steps.check_edits(options, place)
    if options.size:
        _check_divides("--size", options.size, place)
    if trained and (options.image_weight > 0 or options.feature_weight > 0):
        _check_divides("--picture-size", options.picture_size, place)


def check_solve(options: argparse.Namespace) -> None:
    """Refuse times and settings of the solver that make no sense, before anything is loaded.

    Raises:
        ValueError: they make none.
        RuntimeError: the method needs a package that is not installed.
    """
    path_steps.time_choice(options)
    path_steps.solve_settings(options)
    _check_number("--vary-seed", options.vary_seed, 0, math.inf)
    if options.later_at is not None:
        _check_number("--later-at", options.later_at, -math.inf, math.inf)
    if options.method in TORCHDIFFEQ_METHODS:
        import_torchdiffeq()


def _check_number(flag: str, value: float, lowest: float, highest: float) -> None:
    """Infinite bounds stand for any finite number."""
    if not math.isfinite(value) or not lowest <= value <= highest:
        bounds = [f"at least {lowest:g}"] * math.isfinite(lowest) + [f"at most {highest:g}"] * math.isfinite(highest)
        raise ValueError(f"{flag} should be {' and '.join(bounds) or 'a finite number'}, but is {value:g}.")


def _check_divides(flag: str, size: int, place: Workplace) -> None:
    if place.generator.resolution % size:
        raise ValueError(
            f"{flag} should divide the generator's resolution {place.generator.resolution}, but is {size}."
        )
