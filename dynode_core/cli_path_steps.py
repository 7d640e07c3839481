"""Steps of the command line that concern the path: fit it, solve it, compare it."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from . import ode
from .checks import check_family, check_increasing
from .cli_path_options import CLOSED_FORM, IN_FULL
from .cli_steps import Workplace
from .comparison import CompareSettings, Comparison, HoldOut, check_within, compare_paths, picture_sources
from .editing.over_time import edit_over_time, parse_curve
from .inversion.path_loss import PathPictureLoss
from .ode.external import TORCHDIFFEQ_DOPRI5
from .progress import Progress
from .types import AlignedClip, EditedLatent, InvertedClip, LatentTrajectory, TrajectorySample


def fit(options: argparse.Namespace, place: Workplace, inverted: InvertedClip) -> LatentTrajectory:
    """Fit the differential equation and say what its certificate warns of."""
    fit_one = fitter(options, place, inverted)
    with place.step("fit") as progress:
        trajectory = fit_one(inverted, progress)
    for warning in trajectory.certificate.get("warnings", ()):
        place.say(f"warning: {warning}")
    return trajectory


def fitter(
    options: argparse.Namespace, place: Workplace, inverted: InvertedClip
) -> Callable[[InvertedClip, Progress], LatentTrajectory]:
    """The fit that the options ask for."""
    settings = fit_settings(options, place.device)
    if isinstance(settings, ode.TrajectorySettings):
        return lambda codes, progress: ode.fit_trajectory(codes, settings, progress=progress)
    pictures = _picture_loss(options, place, inverted) if settings.picture_weight > 0 else None
    return lambda codes, progress: ode.train_trajectory(
        codes,
        settings,
        picture_loss=pictures,
        picture_loss_id="" if pictures is None else pictures.loss_id,
        cache_dir=place.cache_dir / "trajectories",
        progress=progress,
    )


def fit_settings(options: argparse.Namespace, device: str = "cpu") -> ode.TrajectorySettings | ode.GradientSettings:
    """What the options ask of the fit: in closed form or by training.

    Raises:
        ValueError: A value makes no sense.
    """
    if options.fit == CLOSED_FORM:
        return ode.TrajectorySettings(
            reference=options.reference,
            smoothing=options.path_smoothing,
            state_dependence=options.state_dependence,
            cuts=options.cuts,
            rank=options.rank,
            check_held_out=not options.no_held_out,
            seed=options.seed,
            device=device,
        )
    return ode.GradientSettings(
        variant=options.fit,
        steps=options.steps,
        learning_rate=options.learning_rate,
        batch=options.batch,
        hidden=options.hidden,
        use_time=not options.no_time,
        solver=TORCHDIFFEQ_DOPRI5 if options.adjoint else "dopri5",
        adjoint=options.adjoint,
        latent_weight=options.latent_weight,
        cuts=options.cuts,
        picture_weight=float(options.image_weight > 0 or options.feature_weight > 0),
        seed=options.seed,
        device=device,
    )


def _picture_loss(options: argparse.Namespace, place: Workplace, inverted: InvertedClip) -> PathPictureLoss:
    check_family("The codes", inverted.family, place.generator.family)
    perceptual = place.perceptual() if options.feature_weight > 0 else None
    weights = options.image_weight, options.feature_weight
    return PathPictureLoss(place.generator, perceptual, options.picture_size, *weights, inverted.tuning)


def time_choice(options: argparse.Namespace) -> ode.TimeChoice:
    """The times that the options ask for.

    Raises:
        ValueError: They cannot be read, or a list of them does not increase.
    """
    choice = ode.parse_times(options.times)
    if isinstance(choice, ode.ListTimes):
        check_increasing("--times", np.array(choice.seconds))
    if isinstance(choice, ode.RemapTimes):
        return dataclasses.replace(choice, strength=options.bend, ramp_speed=options.ramp_speed)
    return choice


def solve_settings(options: argparse.Namespace) -> ode.SolveSettings:
    """What the options ask of the solver; the rate and the later edits depend on the trajectory and are not in it.

    Raises:
        ValueError: A value makes no sense.
    """
    parse_curve(options.edit_over_time)
    return ode.SolveSettings(
        method=options.method,
        rtol=options.rtol,
        atol=options.atol,
        faithful=options.faithful,
        anchor_s=options.anchor,
        variation=ode.Variation(options.vary, options.vary_seconds, options.vary_seed),
        edit_limit=options.edit_limit,
        extrapolate_s=options.extrapolate,
        stream=True,
    )


def solve(
    options: argparse.Namespace,
    place: Workplace,
    trajectory: LatentTrajectory,
    latents: Sequence[EditedLatent | None],
    later: EditedLatent | None = None,
) -> list[TrajectorySample]:
    """Take the trajectory at the wanted times, once for each latent."""
    settings = solve_settings(options)
    times, fps = ode.output_times(trajectory, time_choice(options))
    times, notes = ode.clamp_times(trajectory, times, extrapolate_s=options.extrapolate)
    for note in notes:
        place.say(f"note: {note}")
    by = float(trajectory.frame_times[-1]) if options.later_at is None else options.later_at
    with place.step("solve"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the notes were said
        own = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        own["later"] = [] if later is None else [ode.LaterEdit(later, by)]
        own["fps"] = trajectory.fps if options.slow_motion else fps
        samples = ode.solve_batch_at_times(trajectory, times, latents, **own)
    if options.edit_over_time == IN_FULL:
        return samples
    factors, label = parse_curve(options.edit_over_time).at(times), f"over time {options.edit_over_time}"
    return [edit_over_time(sample, factors, label) for sample in samples]


def compare(
    options: argparse.Namespace,
    place: Workplace,
    inverted: InvertedClip,
    latent: EditedLatent | None,
    aligned: AlignedClip | None,
) -> Comparison:
    """Predict the keyframes that are held out.

    Raises:
        ValueError: The codes are those of another generator or clip.
    """
    if aligned is not None:
        check_within(inverted, aligned)
    options = argparse.Namespace(**{**vars(options), "no_held_out": True})
    fit_one = fitter(options, place, inverted)
    settings = CompareSettings(HoldOut(options.keep_every, options.irregular, options.seed), max(1, options.pictures))
    sources = picture_sources(inverted, place.generator, options.size, aligned) if options.pictures > 0 else None
    with place.step("compare") as progress:
        return compare_paths(
            inverted,
            lambda part: fit_one(part, progress),
            settings,
            latent=latent,
            render=None if sources is None else sources.render,
            actual=None if sources is None else sources.actual,
            progress=progress,
        )
