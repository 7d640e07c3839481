"""Training the vector field by gradients, as in the paper (section 4.1) and in the authors' released program.

Each step takes the first code and a few later ones at random, solves from the first to their times and lowers the loss.
Nothing moves continuously across a change of shot: each shot is a solution of the same equation from its own first code
(ours; the paper has one shot), and a step takes its codes from one shot, drawn by its number of keyframes.

It is slow and follows the codes far less closely than `fit_trajectory`; it is here to compare with, and because losses
on the rendered pictures can steer it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..progress import Progress, silent
from ..types import InvertedClip, LatentTrajectory
from .code_space import CodeSpace
from .cuts import asked_cuts, check_cuts, split_at_cuts
from .devices import solving_device
from .external import TORCHDIFFEQ_DOPRI5, import_torchdiffeq
from .networks import CodeNetwork, NetworkField, ReleasedField
from .shots import Shots
from .solution import Status
from .solve import solve
from .subspace import fit_subspace
from .training_cache import Course, TrainingCache, training_key
from .training_plot import TrainingPlot
from .trajectory import check_keyframes

VARIANTS = ("paper", "released")
PictureLoss = Callable[[Tensor, Tensor, np.ndarray], Tensor]
"""`(n, L, D)` solved and observed codes to a scalar: losses in feature and image space come in through it."""


@dataclass(frozen=True)
class GradientSettings:
    """Settings of `train_trajectory`; the defaults are the paper's where it names them."""

    variant: str = "paper"
    """"paper": perceptron on standardised codes and time. "released": the authors' program, rows on their own."""
    steps: int = 5000
    learning_rate: float = 0.01
    batch: int = 8
    """Codes per step beside the first, at most."""
    hidden: int = 256
    use_time: bool = True
    solver: str = "dopri5"
    """"dopri5" (ours) or "torchdiffeq dopri5"."""
    adjoint: bool = False
    """Constant memory by solving the adjoint equation; torchdiffeq only."""
    rtol: float = 1e-3
    atol: float = 1e-4
    latent_weight: float = 1.0
    picture_weight: float = 0.0
    evaluate_every: int = 50
    """Steps between two looks at the loss over all codes; the best state seen is what comes back."""
    patience: int = 20
    """Looks without a better loss (by 0.1 %) after which training stops."""
    cuts: str | tuple[float, ...] = "auto"
    """As in `TrajectorySettings`."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_cuts(self.cuts)
        if self.variant not in VARIANTS:
            raise ValueError(f"variant should be one of {', '.join(VARIANTS)}, but is {self.variant!r}.")
        if self.solver not in ("dopri5", TORCHDIFFEQ_DOPRI5):
            raise ValueError(f"solver should be dopri5 or {TORCHDIFFEQ_DOPRI5}, but is {self.solver!r}.")
        if self.adjoint and self.solver == "dopri5":
            raise ValueError(f"The adjoint method needs the solver {TORCHDIFFEQ_DOPRI5!r}, but it is 'dopri5'.")
        for name in ("steps", "batch", "hidden", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} should be at least 1, but is {getattr(self, name)}.")
        if min(self.latent_weight, self.picture_weight) < 0 or self.latent_weight + self.picture_weight <= 0:
            raise ValueError(
                "The weights of the losses should be 0 or more, and one of them above 0, but that of the codes is "
                f"{self.latent_weight:g} and that of the pictures {self.picture_weight:g}."
            )
        if not 0.0 < self.learning_rate <= 1.0:
            raise ValueError(f"learning_rate should be above 0 and at most 1, but is {self.learning_rate:g}.")


def _solve(network: nn.Module, start: Tensor, times: Tensor, settings: GradientSettings) -> Tensor:
    """`(1, size)` state at times[0] to `(n, size)` states at `(n,)` times, differentiable."""
    if settings.solver == "dopri5":
        solution = solve(network, start, times, rtol=settings.rtol, atol=settings.atol)
        if solution.status is not Status.SUCCESS:
            solution.raise_for_status("dopri5")
        return solution.y[0]
    package = import_torchdiffeq()
    integrate = package.odeint_adjoint if settings.adjoint else package.odeint
    return integrate(network, start, times, rtol=settings.rtol, atol=settings.atol, method="dopri5")[:, 0]


class _Trainer:
    """One training run: network, observations and the best state so far."""

    def __init__(self, inverted: InvertedClip, settings: GradientSettings, picture_loss: PictureLoss | None) -> None:
        self.settings, self.picture_loss = settings, picture_loss
        device = torch.device(settings.device)
        count, rows, channels = inverted.w_plus.shape
        released = settings.variant == "released"
        self.space = CodeSpace(1.0 if released else float(inverted.w_plus.std()) or 1.0, (rows, channels))
        self.span = float(count - 1) if released else 1.0
        self.states = self.space.encode(inverted.w_plus).float().to(device)
        self.times_s = inverted.times
        start, duration = inverted.times[0], inverted.times[-1] - inverted.times[0]
        tau = (inverted.times - start) / duration
        self.times = torch.from_numpy(tau).float().to(device) * self.span
        self.shots = Shots.of(tau, tuple((_cuts(inverted, settings) - start) / duration))
        if released:
            self.network: nn.Module = ReleasedField(rows, channels, seed=settings.seed)
        else:
            self.network = CodeNetwork(
                rows * channels, hidden=settings.hidden, use_time=settings.use_time, seed=settings.seed
            )
        self.network = self.network.to(device)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-8
        )
        self.rng = np.random.default_rng(settings.seed)

    def loss(self, picked: Tensor) -> Tensor:
        """Weighted loss of the codes `picked`: sorted, all of one shot, its first among them."""
        solved = _solve(self.network, self.states[picked[:1]], self.times[picked], self.settings)[1:]
        observed = self.states[picked[1:]]
        loss = self.settings.latent_weight * (solved - observed).square().mean()
        if self.picture_loss is not None and self.settings.picture_weight > 0:
            shape = self.space.code_shape
            codes = [(value * self.space.scale).view(-1, *shape) for value in (solved, observed)]
            loss = loss + self.settings.picture_weight * self.picture_loss(
                codes[0], codes[1], self.times_s[picked[1:].cpu().numpy()]
            )
        return loss

    def step(self) -> None:
        """One gradient step on a random sub-sequence of one shot."""
        runs = self.shots.trainable
        later = np.array([run.stop - run.start - 1 for run in runs])
        run = runs[0] if len(runs) == 1 else runs[self.rng.choice(len(runs), p=later / later.sum())]
        count = min(self.settings.batch, run.stop - run.start - 1)
        drawn = np.sort(self.rng.choice(np.arange(run.start + 1, run.stop), count, replace=False))
        picked = torch.from_numpy(np.concatenate([[run.start], drawn])).to(self.states.device)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(picked)
        if bool(torch.isfinite(loss)):
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
            self.optimiser.step()

    def evaluate(self) -> float:
        """Loss over all codes: the mean over the shots, weighted by their number of codes."""
        total, count = 0.0, 0
        with torch.no_grad():
            for run in self.shots.trainable:
                later = run.stop - run.start - 1
                total += later * float(self.loss(torch.arange(run.start, run.stop, device=self.states.device)))
                count += later
        return total / max(1, count)

    def solved_states(self) -> Tensor:
        """`(K, size)` states of the solution at the times of the observations, each shot from its own first code."""
        solved = self.states.clone()
        with torch.no_grad():
            for run in self.shots.trainable:
                solved[run] = _solve(
                    self.network, self.states[run.start : run.start + 1], self.times[run], self.settings
                )
        return solved

    def look(self, course: Course) -> None:
        """Note the loss over all codes, and the weights if it is the lowest so far."""
        loss, lowest = self.evaluate(), min(course.losses)
        course.losses.append(loss)
        course.stale = 0 if loss < 0.999 * lowest else course.stale + 1
        if loss < lowest:
            course.best, course.best_step = copy.deepcopy(self.network.state_dict()), course.step


def train_trajectory(
    inverted: InvertedClip,
    settings: GradientSettings | None = None,
    *,
    picture_loss: PictureLoss | None = None,
    picture_loss_id: str = "",
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> LatentTrajectory:
    """Train a vector field on the codes of the keyframes.

    Args:
        inverted: K >= 2 codes.
        picture_loss: Loss in feature or image space; counts with `picture_weight`.
        picture_loss_id: Names what that loss does (generator, size), for the cache.
        cache_dir: Where an interrupted run is kept; the same call goes on with it, and so does one with more steps. A
            `picture_loss` without `picture_loss_id` is never kept.
        progress: Called after every step, with a plot of the path and the losses after every look.
    Returns:
        A trajectory whose certificate holds the losses seen (`losses`, one per look), the step of the best one and the
        error at the observed codes. `solve_at_times` with `faithful` = 1 corrects what training left over.
    Raises:
        ValueError: Fewer than 2 keyframes.
        RuntimeError: The solver failed on the trained field.
    """
    settings = settings or GradientSettings()
    check_keyframes(inverted)
    trainer = _Trainer(inverted, settings, picture_loss)
    kept = cache_dir if picture_loss is None or picture_loss_id else None
    cache = TrainingCache(kept, training_key(inverted, settings, picture_loss_id))
    parts = trainer.network, trainer.optimiser, trainer.rng
    course = cache.restore(*parts)
    resumed = 0 if course is None else course.step
    if course is None:
        course = Course(0, [trainer.evaluate()], copy.deepcopy(trainer.network.state_dict()))
    plot = None if progress is silent else TrainingPlot(inverted)
    while trainer.shots.trainable and course.step < settings.steps and course.stale < settings.patience:
        trainer.step()
        course.step += 1
        preview = None
        if course.step % settings.evaluate_every == 0:
            trainer.look(course)
            cache.store(course, *parts)
            if plot is not None:
                preview = plot.draw(
                    trainer.space.decode(trainer.solved_states().cpu()), course.losses, settings.evaluate_every
                )
        try:
            progress(course.step, settings.steps, preview)
        except BaseException:
            cache.store(course, *parts, at_once=True)
            raise
    if course.step > resumed:
        cache.store(course, *parts, at_once=True)
    if course.step % settings.evaluate_every:
        trainer.look(course)
    trainer.network.load_state_dict(course.best)
    for parameter in trainer.network.parameters():
        parameter.requires_grad_(False)
    return _as_trajectory(inverted, trainer, course, resumed)


def _cuts(inverted: InvertedClip, settings: GradientSettings) -> np.ndarray:
    """`(C,)` seconds of the cuts that the settings ask for."""
    states = fit_subspace(inverted.w_plus, seed=settings.seed).encode(inverted.w_plus).numpy()
    return np.asarray(asked_cuts(settings.cuts, inverted.times, states, inverted.cuts_s), dtype=np.float64)


def _warnings(inverted: InvertedClip, settings: GradientSettings) -> list[str]:
    """Sentences for a user about what training was told not to heed."""
    seen = () if inverted.cuts_s is None else tuple(inverted.cuts_s.tolist())
    _, cuts = split_at_cuts(inverted.times, seen)
    if not cuts or settings.cuts != "none":
        return []
    seconds = ", ".join(f"{cut:.2f}" for cut in cuts[:8]) + (", ..." if len(cuts) > 8 else "")
    return [
        f"With cuts at 'none' the path is one curve: it moves across the changes of shot (at {seconds} s) instead of "
        "jumping. Set cuts to 'auto'."
    ]


def _field_of(trainer: _Trainer, solved: Tensor) -> NetworkField:
    """The trained field, where it is going to be solved. solved: `(K, size)` states at the keyframes."""
    shots, device = trainer.shots, solving_device(trainer.settings.device)
    starts, ends = [], []
    left = -1
    for number, moves in zip(shots.shot, shots.moving, strict=True):
        run = shots.runs[number]
        begun = left == number
        starts.append(solved[run.stop - 1 if begun and not moves else run.start])
        ends.append(solved[run.stop - 1 if begun or moves else run.start])
        left = number if moves else left
    edges, moving = torch.from_numpy(shots.edges), torch.from_numpy(shots.moving)
    start, end = (torch.stack(states).to(device) for states in (starts, ends))
    return NetworkField(trainer.network.to(device), start, end, trainer.span, edges, moving)


def _as_trajectory(inverted: InvertedClip, trainer: _Trainer, course: Course, resumed: int) -> LatentTrajectory:
    settings, states = trainer.settings, trainer.states
    solved = trainer.solved_states()
    cuts = np.interp(trainer.shots.cuts, [0.0, 1.0], inverted.times[[0, -1]])
    certificate = {
        "variant": settings.variant,
        "losses": course.losses,
        "best_step": course.best_step,
        "steps": course.step,
        "resumed_at": resumed,
        "warnings": _warnings(inverted, settings),
        "cuts_s": cuts.tolist(),
        "observed_rel": float((solved - states).norm() / states.norm()),
    }
    return LatentTrajectory(
        vector_field=_field_of(trainer, solved),
        subspace=trainer.space,
        w_plus_0=inverted.w_plus[0].clone(),
        times=inverted.times,
        w_plus=inverted.w_plus,
        frame_times=inverted.frame_times,
        fps=inverted.fps,
        family=inverted.family,
        generator_id=inverted.generator_id,
        method="dopri5",
        rtol=settings.rtol,
        atol=settings.atol,
        certificate=certificate,
        tuning=inverted.tuning,
    )
