"""The comparison in latent space: each method gives codes at all keyframes, from those that were kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ode import solve_at_times
from ..ode.cuts import cuts_of_clip
from ..ode.held_out import take_keyframes
from ..ode.subspace import fit_subspace
from ..types import EditedLatent, InvertedClip, LatentTrajectory
from .morphing import morph_along_spline, morph_straight

TRAJECTORY, SMOOTH = "trajectory", "trajectory, ODE alone"
STRAIGHT, SPLINE, EACH_FRAME = "linear morphing", "spline morphing", "frame by frame"
METHODS = (TRAJECTORY, SMOOTH, STRAIGHT, SPLINE, EACH_FRAME)
_CHUNK = 256


@dataclass(frozen=True)
class CodePaths:
    """The observed codes, and what each method makes of the kept ones. K keyframes."""

    truth: Tensor
    """`(K, L, D)` float32: each frame inverted, and edited if there is an edit."""
    kept: np.ndarray
    """`(K,)` bool."""
    codes: Callable[[str, np.ndarray], Tensor]
    """Method and `(n,)` indices of keyframes to `(n, L, D)` codes."""
    trajectory: LatentTrajectory
    """Fitted to the kept codes."""
    times: np.ndarray
    """`(K,)` seconds."""
    cuts: np.ndarray
    """`(C,)` seconds: shot changes, across which no morphing blends."""
    change: Tensor
    """`(L, D)`: what the edit adds to a code; 0 without one."""
    latent: EditedLatent | None
    """The edit of this clip's first code."""


def code_paths(
    inverted: InvertedClip,
    kept: np.ndarray,
    fit: Callable[[InvertedClip], LatentTrajectory],
    latent: EditedLatent | None = None,
) -> CodePaths:
    """Fit the kept keyframes and set up every method.

    Frame-by-frame editing adds the change to the code of every frame; morphing adds it to the kept ones and blends.
    """
    times, index = inverted.times, np.flatnonzero(kept)
    part = take_keyframes(inverted, index)
    trajectory = fit(part)
    cuts = _cuts(part, trajectory)
    first, change = inverted.w_plus[0], torch.zeros_like(inverted.w_plus[0])
    if latent is not None:
        change = (latent.w_plus_0 - latent.base_w_plus_0).float().cpu()
        latent = dataclasses.replace(latent, w_plus_0=first + change, base_w_plus_0=first)
    truth = inverted.w_plus + change

    def codes(method: str, asked: np.ndarray) -> Tensor:
        if method == EACH_FRAME:
            return truth[torch.from_numpy(asked)]
        if method in (TRAJECTORY, SMOOTH):
            faithful = 1.0 if method == TRAJECTORY else 0.0
            return solve_at_times(trajectory, times[asked], latent=latent, faithful=faithful).w_plus[:]
        morph = morph_straight if method == STRAIGHT else morph_along_spline
        return morph(part.w_plus + change, part.times, times[asked], cuts)

    return CodePaths(truth, kept, codes, trajectory, times, cuts, change, latent)


def _cuts(part: InvertedClip, trajectory: LatentTrajectory) -> np.ndarray:
    """`(C,)` seconds of the shot changes: those that the fit knew, or else those of the clip."""
    known = trajectory.certificate.get("cuts_s", ())
    if not len(known):
        known = cuts_of_clip(part.times, fit_subspace(part.w_plus).encode(part.w_plus).numpy(), part.cuts_s)
    return np.asarray(known, dtype=np.float64)


def squared_norms(codes: Tensor) -> np.ndarray:
    """`(K, L, D)` to `(K,)` float64."""
    return np.concatenate([part.double().square().sum(dim=(1, 2)).numpy() for part in codes.split(_CHUNK)])


def acceleration(codes: Tensor, times: np.ndarray, cuts: np.ndarray) -> float:
    """Rms second derivative of the path over its keyframes, for a unit of time of one mean gap; cuts are left out.

    Args:
        codes: `(K, L, D)`, K >= 3.
    """
    gaps = np.diff(times)
    whole = [not np.any((cuts > times[i - 1]) & (cuts <= times[i + 1])) for i in range(1, len(times) - 1)]
    total = 0.0
    for i in np.flatnonzero(whole) + 1:
        before, after = (codes[i] - codes[i - 1]) / gaps[i - 1], (codes[i + 1] - codes[i]) / gaps[i]
        total += float((2 * (after - before) / (gaps[i - 1] + gaps[i])).double().square().sum())
    return float(np.sqrt(total / max(1, sum(whole)))) * float(gaps.mean()) ** 2


def compare_codes(paths: CodePaths) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Errors of every method in latent space (see `METHODS`).

    Returns:
        By method: `observed` and `held_out` (||error|| / ||code|| over the kept and the other keyframes),
        `held_out_of_motion` (the same in units of the motion, ||code - mean code||), `acceleration` (in units of the
        spread of the codes), `codes_inverted` and `codes_edited` (how many it needed); and by method the `(K,)`
        relative error of each keyframe.
    """
    held, everything = ~paths.kept, np.arange(len(paths.times))
    sizes = squared_norms(paths.truth).clip(min=1e-30)
    motion = squared_norms(paths.truth - paths.truth.mean(dim=0))
    edited = bool(paths.change.any())
    table: dict[str, dict[str, Any]] = {}
    by_frame = {}
    for method in METHODS:
        codes = paths.codes(method, everything)
        errors = squared_norms(codes - paths.truth)
        each = method == EACH_FRAME
        ours = method in (TRAJECTORY, SMOOTH)
        table[method] = {
            "observed": float(np.sqrt(errors[paths.kept].sum() / sizes[paths.kept].sum())),
            "held_out": float(np.sqrt(errors[held].sum() / sizes[held].sum())),
            "held_out_of_motion": float(np.sqrt(errors[held].sum() / max(motion[held].sum(), 1e-30))),
            "acceleration": acceleration(codes, paths.times, paths.cuts) / max(float(np.sqrt(motion.mean())), 1e-30),
            "codes_inverted": len(held) if each else int(paths.kept.sum()),
            "codes_edited": 0 if not edited else 1 if ours else len(held) if each else int(paths.kept.sum()),
        }
        by_frame[method] = np.sqrt(errors / sizes)
    return table, by_frame


def carried_edit(paths: CodePaths) -> dict[str, float] | None:
    """How exactly the trajectory carries the change of the first code: worst cosine and sizes over all keyframes.

    None if there is no change to carry, as with an edit of strength 0.
    """
    if not bool(paths.change.any()):
        return None
    sample = solve_at_times(paths.trajectory, paths.times, latent=paths.latent)
    size = max(float(paths.change.double().norm()), 1e-30)
    cosines, sizes = [], []
    for low in range(0, len(paths.times), _CHUNK):
        rows = slice(low, low + _CHUNK)
        carried = (sample.w_plus[rows] - sample.base_w_plus[rows]).double().flatten(1)
        cosines.append(torch.cosine_similarity(carried, paths.change.double().flatten()[None]))
        sizes.append(carried.norm(dim=1) / size)
    ratio = torch.cat(sizes)
    return {"cosine": float(torch.cat(cosines).min()), "size_low": float(ratio.min()), "size_high": float(ratio.max())}
