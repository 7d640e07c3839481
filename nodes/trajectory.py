"""Fit Trajectory ODE and Solve At Times: the clip as a solution of a differential equation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..dynode_core.checks import check_increasing
from ..dynode_core.layout import bytes_to_pictures
from ..dynode_core.ode import (
    METHODS,
    REFERENCES,
    TrajectorySettings,
    clamp_times,
    fit_trajectory,
    output_times,
    plot_trajectory,
    solve_at_times,
)
from ..dynode_core.ode.times import PLAYBACKS, ListTimes, parse_times
from ..dynode_core.types import EditedLatent, InvertedClip, LatentTrajectory, TrajectorySample
from . import sockets
from .devices import outside_inference_mode
from .progress import NodeProgress

AUTOMATIC = "automatic"
BY_HAND = "by hand"
_STRENGTH = io.Float.Input(
    "strength",
    default=1.0,
    min=0.0,
    max=1_000_000.0,
    step=0.1,
    tooltip="0 passes through every keyframe; more is smoother. In units of the mean gap between keyframes, cubed.",
)
_FACTOR = io.Int.Input(
    "factor",
    default=4,
    min=2,
    max=32,
    tooltip="As many frames in between that there are this many times as many steps.",
)
_COUNT = io.Int.Input("count", default=120, min=1, max=100_000, tooltip="Frames, evenly spread over the clip.")
_RATE = io.Float.Input(
    "fps", default=60.0, min=1.0, max=1000.0, step=0.01, tooltip="Frames per second of the clip's own time."
)

_TIMES = io.String.Input(
    "times",
    default="0, 0.5, 1",
    tooltip="Seconds of the clip, increasing, with commas between them, such as 0, 0.1, 0.25",
)


class FitTrajectory(io.ComfyNode):
    """Fit dz/dt = f(z, t) to the codes of the keyframes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_FitTrajectory",
            display_name="Fit Trajectory ODE (GPU DOPRI5)",
            category=sockets.CATEGORY,
            description="Fits a differential equation whose solution passes through the codes of the keyframes. From "
            "then on the whole clip follows from its first code.",
            search_aliases=["neural ode", "dopri5", "latent trajectory", "dynode", "ode fit", "continuous time"],
            inputs=_fit_inputs(),
            outputs=[
                sockets.Trajectory.Output(
                    id="trajectory", display_name="trajectory", tooltip="For Edit First Latent and Solve At Times."
                ),
                io.Image.Output(
                    id="plot",
                    display_name="plot",
                    tooltip="The strongest axes of the codes against time: keyframes as points, the solution as lines.",
                ),
                io.String.Output(
                    id="report", display_name="report", tooltip="What was checked after the fit, as text."
                ),
            ],
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        codes: InvertedClip,
        smoothing: Mapping[str, Any],
        state_dependence: float,
        cuts: str,
        rank: int,
        reference: str,
        check_held_out: bool,
        seed: int,
    ) -> io.NodeOutput:
        settings = TrajectorySettings(
            reference=reference,
            smoothing=smoothing["strength"] if smoothing["smoothing"] == BY_HAND else None,
            rank=rank,
            state_dependence=state_dependence,
            cuts=cuts,
            check_held_out=check_held_out,
            seed=seed,
            device=str(comfy.model_management.get_torch_device()),
        )
        trajectory = fit_trajectory(codes, settings, progress=NodeProgress())
        plot = bytes_to_pictures(plot_trajectory(trajectory))[None]
        return io.NodeOutput(trajectory, plot, fit_report(trajectory), ui=ui.PreviewImage(plot, cls=cls))


def fit_report(trajectory: LatentTrajectory) -> str:
    """What was checked after the fit: warnings first, then every fact, one per line."""
    facts = dict(trajectory.certificate)
    warnings = facts.pop("warnings", [])
    lines = [f"WARNING: {warning}" for warning in warnings]
    lines.append(f"keyframes: {len(trajectory.times)} over {trajectory.times[-1] - trajectory.times[0]:.2f} s")
    for name, value in facts.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        lines.append(f"{name.replace('_', ' ')}: {shown}")
    return "\n".join(lines)


def _fit_inputs() -> list[io.Input]:
    return [
        sockets.Codes.Input("codes", tooltip="Codes of the keyframes, from StyleGAN2 Invert."),
        io.DynamicCombo.Input(
            "smoothing",
            options=[io.DynamicCombo.Option(AUTOMATIC, []), io.DynamicCombo.Option(BY_HAND, [_STRENGTH])],
            tooltip="How smooth the path is between keyframes. automatic measures how much the codes tremble.",
        ),
        io.Float.Input(
            "state_dependence",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="0 carries an edit through the clip unchanged. Towards 1 the motion depends on the state, so that "
            "an edit also changes how the face moves, and drifts.",
        ),
        io.Combo.Input(
            "cuts",
            options=["auto", "none"],
            default="auto",
            tooltip="auto finds changes of shot in the codes and lets the path jump there. none fits one smooth path.",
        ),
        io.Int.Input(
            "rank",
            default=64,
            min=1,
            max=512,
            tooltip="Axes of the space in which the path is fitted, at most one less than there are keyframes.",
            advanced=True,
        ),
        io.Combo.Input(
            "reference",
            options=list(REFERENCES),
            default=REFERENCES[0],
            tooltip="The curve through the keyframes that the field is fitted to. auto chooses by their number.",
            advanced=True,
        ),
        io.Boolean.Input(
            "check_held_out",
            default=True,
            tooltip="Also fit every other keyframe and report how well the rest are predicted.",
            advanced=True,
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip="Of the random parts of the field. Same seed, same trajectory.",
            advanced=True,
        ),
    ]


class SolveAtTimes(io.ComfyNode):
    """Integrate the trajectory from the (edited) first code and take it at the wanted times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_SolveAtTimes",
            display_name="Solve At Times",
            category=sockets.CATEGORY,
            description="Solves the trajectory from the first code, edited or not, and takes its codes at the wanted "
            "times: the clip's own frames, in-between frames, another frame rate, or a list.",
            search_aliases=["ode solve", "slow motion", "interpolate frames", "retime", "frame rate", "dynode"],
            inputs=_solve_inputs(),
            outputs=[
                sockets.Sample.Output(id="sample", display_name="sample", tooltip="For StyleGAN2 Render."),
                io.String.Output(id="report", display_name="report", tooltip="Times, solver and its work, as text."),
            ],
        )

    @classmethod
    def check_lazy_status(cls, mode: Mapping[str, tuple[Any, str]], **inputs: Any) -> list[str]:
        """Refuse times that make no sense before the trajectory, and with it the inversion, is computed.

        The edit is asked for first, so that Edit First Latent can refuse what does not fit as early.
        """
        choice = parse_times(times_spec({name: value for name, (value, _) in mode.items()}))
        if isinstance(choice, ListTimes):
            check_increasing("The list of times", np.array(choice.seconds))
        waiting: list[str] = [name for name in ("latent", "trajectory") if name in inputs and inputs[name] is None]
        return waiting[:1]

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def execute(
        cls,
        trajectory: LatentTrajectory,
        mode: Mapping[str, Any],
        playback: str,
        method: str,
        rtol: float,
        atol: float,
        faithful: float,
        latent: EditedLatent | None = None,
    ) -> io.NodeOutput:
        progress = NodeProgress()
        progress(0, 1)
        wanted, fps = output_times(trajectory, times_spec(mode), playback=playback)
        inside, notes = clamp_times(trajectory, wanted)
        sample = solve_at_times(
            trajectory, inside, latent=latent, method=method, rtol=rtol, atol=atol, faithful=faithful, fps=fps
        )
        progress(1, 1)
        return io.NodeOutput(sample, "\n".join([*notes, sample_report(sample)]))


def times_spec(mode: Mapping[str, Any]) -> str:
    """What `ode.output_times` reads, from the value of the input mode."""
    chosen = mode["mode"]
    if chosen == "factor":
        return f"x{mode['factor']}"
    if chosen == "count":
        return f"{mode['count']} frames"
    if chosen == "fps":
        return f"{mode['fps']:g} fps"
    return mode["times"] if chosen == "list" else "same"


def sample_report(sample: TrajectorySample) -> str:
    """The facts of a solution, one per line."""
    lines = [
        f"{len(sample.times)} frames from {sample.times[0]:.3f} s to {sample.times[-1]:.3f} s, played at "
        f"{float(sample.fps):.3f} fps",
        f"solver: {sample.status}, {sample.nfe} evaluations in sequence",
        f"edits: {', '.join(sample.edits) or 'none'}",
    ]
    return "\n".join(lines)


def _solve_inputs() -> list[io.Input]:
    return [
        sockets.Trajectory.Input("trajectory", lazy=True, tooltip="From Fit Trajectory ODE."),
        sockets.Latent.Input(
            "latent", optional=True, lazy=True, tooltip="From Edit First Latent. Without it the clip stays as it was."
        ),
        io.DynamicCombo.Input(
            "mode",
            options=[
                io.DynamicCombo.Option("same", []),
                io.DynamicCombo.Option("factor", [_FACTOR]),
                io.DynamicCombo.Option("count", [_COUNT]),
                io.DynamicCombo.Option("fps", [_RATE]),
                io.DynamicCombo.Option("list", [_TIMES]),
            ],
            tooltip="Which times: those of the clip's frames, n times as many steps, a number of frames, a frame rate, "
            "or a list of seconds.",
        ),
        io.Combo.Input(
            "playback",
            options=list(PLAYBACKS),
            default=PLAYBACKS[0],
            tooltip="With more frames: play them in the same time (smoother), or at the clip's frame rate (slower).",
        ),
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default=METHODS[0],
            tooltip="The solver. dopri5 is adaptive and right for almost everything; parallel treats all times at "
            "once; the others come from torchdiffeq, for comparison.",
            advanced=True,
        ),
        io.Float.Input(
            "rtol",
            default=1e-5,
            min=1e-9,
            max=1e-1,
            step=1e-6,
            round=1e-9,
            tooltip="Relative tolerance of adaptive solvers.",
            advanced=True,
        ),
        io.Float.Input(
            "atol",
            default=1e-6,
            min=1e-10,
            max=1e-1,
            step=1e-7,
            round=1e-10,
            tooltip="Absolute tolerance of adaptive solvers.",
            advanced=True,
        ),
        io.Float.Input(
            "faithful",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="1 keeps every keyframe as it was inverted; 0 keeps only the smooth path, which calms trembling.",
        ),
    ]


NODES = [FitTrajectory, SolveAtTimes]
