"""From the codes of keyframes to a `LatentTrajectory`: the closed-form fit with its certificate."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from ..progress import Progress, silent
from ..types import InvertedClip, LatentTrajectory
from .certificate import DRIFT_LIMIT, CertifiedField, certify
from .closed_form import Segment, fit_field
from .cuts import asked_cuts, split_at_cuts
from .held_out import held_out_errors
from .learned import Effort
from .reference import LEARNED, ReferenceFit, fit_reference
from .settings import TrajectorySettings
from .subspace import Subspace, fit_subspace
from .vector_field import WindowedField

_STAGES, _SAMPLES = 4, 1024
_NEGLIGIBLE = 0.005
"""Held-out error, relative to the codes, that no eye sees."""


def check_keyframes(inverted: InvertedClip) -> None:
    """Raise ValueError for fewer than 2 keyframes."""
    if len(inverted.times) < 2:
        raise ValueError(
            "A trajectory needs the codes of at least 2 keyframes, but the inverted clip has 1. Invert a longer clip, "
            "or lower the spacing of keyframes."
        )


def _samples(inverted: InvertedClip) -> np.ndarray:
    """`(K, C)` float32: about a thousand entries of each code, evenly taken."""
    flat = inverted.w_plus.reshape(len(inverted.times), -1)
    return flat[:, :: max(1, flat.shape[1] // _SAMPLES)].numpy()


def _segments(
    tau: np.ndarray,
    states: np.ndarray,
    samples: np.ndarray,
    cuts: tuple[float, ...],
    settings: TrajectorySettings,
    effort: Effort,
) -> tuple[list[Segment], list[ReferenceFit], list[float]]:
    """Reference paths of the shots; together they cover [0, 1]."""
    runs, used = split_at_cuts(tau, cuts)
    bounds = [0.0, *used, 1.0]
    segments, fits = [], []
    for run, low, high in zip(runs, bounds[:-1], bounds[1:], strict=True):
        fit = fit_reference(
            tau[run],
            states[run],
            kind=settings.reference,
            smoothing=settings.smoothing,
            samples=samples[run],
            seed=settings.seed,
            effort=effort,
        )
        segments.append(Segment(low, high, tau[run], fit.reference, fit.subdivision, fit.gaps_per_window))
        fits.append(fit)
    return segments, fits, used


def _observed_error(inverted: InvertedClip, subspace: Subspace, states: np.ndarray, solved: np.ndarray) -> float:
    """||solved code - code|| / ||code|| over keyframes, without decoding: axes and their complement are orthogonal."""
    total = centred = 0.0
    for part in inverted.w_plus.reshape(len(states), -1).split(256):
        total += float(part.norm()) ** 2
        centred += float((part - subspace.mean).norm()) ** 2
    outside = max(0.0, centred - float(np.square(states).sum()) * subspace.scale**2)
    inside = float(np.square(states - solved).sum()) * subspace.scale**2
    return float(np.sqrt((inside + outside) / max(total, 1e-30)))


def _report(
    certified: CertifiedField, fits: list[ReferenceFit], subspace: Subspace, cuts_s: list[float], observed: float
) -> dict[str, Any]:
    check = certified.check
    longest = max(fits, key=lambda fit: (fit.kind != "constant", fit.smoothing))
    compared = [fit.cross_validated for fit in fits if fit.cross_validated is not None]
    worst = max(compared, key=lambda errors: errors[0] / max(errors[1], 1e-30), default=None)
    cross = {} if worst is None else dict(zip(("cross_validated_learned", "cross_validated_plain"), worst, strict=True))
    return cross | {
        "passed": check.passes(certified.jacobian_weight),
        "drift": check.drift,
        "drift_limit": DRIFT_LIMIT,
        "probe_gain_low": check.gain_low,
        "probe_gain_high": check.gain_high,
        "jacobian_weight": certified.jacobian_weight,
        "subdivision": certified.subdivision * max(fit.subdivision for fit in fits),
        "tries": certified.tries,
        "solver_status": check.status.label,
        "reference": longest.kind,
        "smoothing": longest.smoothing,
        "jitter": longest.jitter,
        "jitter_correlation": longest.correlation,
        "rank": subspace.rank,
        "windows": len(certified.field.edges) - 1,
        "cuts_s": cuts_s,
        "observed_rel": observed,
    }


def _as_trajectory(
    inverted: InvertedClip,
    settings: TrajectorySettings,
    subspace: Subspace,
    field: WindowedField,
    certificate: dict[str, Any],
) -> LatentTrajectory:
    return LatentTrajectory(
        vector_field=field,
        subspace=subspace,
        w_plus_0=inverted.w_plus[0].clone(),
        times=inverted.times,
        w_plus=inverted.w_plus,
        frame_times=inverted.frame_times,
        fps=inverted.fps,
        family=inverted.family,
        generator_id=inverted.generator_id,
        method=settings.method,
        rtol=settings.rtol,
        atol=settings.atol,
        certificate=certificate,
        tuning=inverted.tuning,
    )


def fit_trajectory(
    inverted: InvertedClip, settings: TrajectorySettings | None = None, *, progress: Progress = silent
) -> LatentTrajectory:
    """Fit a vector field whose solution passes the codes of the keyframes (paper, equations 4 and 5; fit: ours).

    Args:
        inverted: K >= 2 codes with increasing times.
        progress: Called after each of 4 stages, and after each step of learning a path; may raise to cancel.
    Returns:
        The trajectory. Its `certificate` tells drift, probe gains, observed and held-out errors; where `passed` is
        False the limits were not met after three fits, and `warnings` says what that means.
    Raises:
        ValueError: Fewer than 2 keyframes.
    """
    settings = settings or TrajectorySettings()
    check_keyframes(inverted)
    times = inverted.times
    start, duration = float(times[0]), float(times[-1] - times[0])
    tau = (times - start) / duration
    subspace = fit_subspace(inverted.w_plus, rank=settings.rank, seed=settings.seed)
    states = subspace.encode(inverted.w_plus).numpy()
    progress(1, _STAGES)
    cuts = asked_cuts(settings.cuts, times, states, inverted.cuts_s)
    asked = tuple((cut - start) / duration for cut in cuts)
    effort = Effort(on_step=lambda: progress(1, _STAGES))
    segments, fits, used = _segments(tau, states, _samples(inverted), asked, settings, effort)
    reference = np.concatenate([segment.reference.position(segment.knots) for segment in segments])
    progress(2, _STAGES)
    certified = certify(
        lambda weight, subdivision: fit_field(
            segments,
            subspace.rank,
            jacobian_weight=weight,
            per_window=settings.window_intervals,
            subdivision=subdivision,
            seed=settings.seed,
            device=settings.device,
        ),
        tau,
        torch.from_numpy(reference),
        settings.jacobian_weight,
        rtol=settings.rtol,
        atol=settings.atol,
        seed=settings.seed,
    )
    progress(3, _STAGES)
    cuts_s = [start + cut * duration for cut in used]
    observed = _observed_error(inverted, subspace, states, certified.check.solved)
    certificate = _report(certified, fits, subspace, cuts_s, observed)
    trajectory = _as_trajectory(inverted, settings, subspace, certified.field, certificate)
    if settings.check_held_out:
        simpler = dataclasses.replace(settings, check_held_out=False, cuts=tuple(cuts_s), method="parallel")
        certificate.update(held_out_errors(inverted, lambda half: fit_trajectory(half, simpler), cuts_s))
    certificate["warnings"] = _warnings(certificate)
    progress(_STAGES, _STAGES)
    return trajectory


def _warnings(certificate: dict[str, Any]) -> list[str]:
    """Sentences for a user about what the certificate found wanting."""
    found = []
    if not certificate["passed"]:
        found.append(
            f"The solved path departs from the fitted one by {certificate['drift']:.2g} (limit {DRIFT_LIMIT:g}) and "
            f"scales edits by {certificate['probe_gain_low']:.3f} to {certificate['probe_gain_high']:.3f}. Use less "
            "state dependence, or fewer gaps per window if keyframes are very unevenly spaced."
        )
    if "cross_validated_learned" in certificate and certificate["reference"] != LEARNED:
        learned, plain = certificate["cross_validated_learned"], certificate["cross_validated_plain"]
        found.append(
            f"A learned path predicts left-out keyframes with an error of {learned:.3g} of the motion, the plain one "
            f"with {plain:.3g}: the plain one is used."
        )
    ours, linear = certificate.get("held_out_rel"), certificate.get("held_out_linear_rel")
    if ours is not None and linear is not None and ours > 1.05 * linear + _NEGLIGIBLE:
        found.append(
            f"Codes left out of the fit are predicted with an error of {ours:.3g}, linear interpolation makes "
            f"{linear:.3g}: keyframes are too far apart for this motion. Invert more of them for slow motion."
        )
    return found
