"""Solve At Times: the trajectory from its first code, edited or not, at any times."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..dynode_core.checks import check_increasing
from ..dynode_core.ode import (
    CURVES,
    METHODS,
    PLAYBACKS,
    LaterEdit,
    ListTimes,
    RemapTimes,
    SolveSettings,
    TimeChoice,
    Variation,
    clamp_times,
    output_times,
    parse_times,
    solve_batch_at_times,
)
from ..dynode_core.types import EditedLatent, LatentTrajectory, TrajectorySample
from . import sockets
from .devices import outside_inference_mode
from .progress import NodeProgress

EDIT_LIMIT = 1.2
MORE_LATENTS = ("latent_2", "latent_3", "latent_4")
_FACTOR = io.Int.Input(
    "factor",
    default=4,
    min=2,
    max=32,
    tooltip="As many frames in between that there are this many times as many steps.",
)
_COUNT = io.Int.Input("count", default=120, min=1, max=100_000, tooltip="Frames, evenly spread over the clip.")
_RATE = io.Float.Input(
    "fps", default=60.0, min=1.0, max=1000.0, step=0.001, tooltip="Frames per second of the clip's own time."
)

_TIMES = io.String.Input(
    "times",
    default="0, 0.5, 1",
    tooltip="Seconds of the clip, increasing, with commas between them, such as 0, 0.1, 0.25",
)
_CURVE = [
    io.Combo.Input(
        "curve",
        options=list(CURVES),
        default="ease in and out",
        tooltip="How the clip is run through: eased, ever faster or slower (ramp), backwards, again and again, or "
        "there and back.",
    ),
    io.Float.Input(
        "frames_per_frame",
        default=1.0,
        min=0.05,
        max=32.0,
        step=0.05,
        tooltip="Output frames of one run for every frame of the clip.",
    ),
    io.Float.Input(
        "bend", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="How far eases and ramps bend: 0 is even speed."
    ),
    io.Int.Input("repeats", default=1, min=1, max=1000, tooltip="Runs of a loop or of a ping-pong."),
    io.Float.Input(
        "ramp_speed",
        default=4.0,
        min=0.02,
        max=64.0,
        step=0.1,
        tooltip="Speed at the end of a ramp over that at its beginning.",
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
                sockets.Sample.Output(
                    id="sample",
                    display_name="sample",
                    tooltip="For StyleGAN2 Render. With several latents a list: what follows runs once for each.",
                    is_output_list=True,
                ),
                io.String.Output(id="report", display_name="report", tooltip="Times, solver and its work, as text."),
            ],
        )

    @classmethod
    def check_lazy_status(cls, mode: Mapping[str, tuple[Any, str]], **inputs: Any) -> list[str]:
        """Refuse times and limits that make no sense before the trajectory, and with it the inversion, is computed.

        The edit is asked for first, so that Edit First Latent can refuse what does not fit as early.
        """
        choice = time_choice({name: value for name, (value, _) in mode.items()})
        if isinstance(choice, ListTimes):
            check_increasing("The list of times", np.array(choice.seconds))
        SolveSettings(edit_limit=inputs.get("edit_limit", EDIT_LIMIT))
        lazy = ("latent", *MORE_LATENTS, "later", "trajectory")
        waiting: list[str] = [name for name in lazy if name in inputs and inputs[name] is None]
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
        anchor_s: float = 0.0,
        later_s: float = 1.0,
        variation: float = 0.0,
        variation_length_s: float = 0.5,
        variation_seed: int = 0,
        extrapolate_s: float = 0.0,
        edit_limit: float = EDIT_LIMIT,
        latent: EditedLatent | None = None,
        later: EditedLatent | None = None,
        **more: EditedLatent | None,
    ) -> io.NodeOutput:
        progress = NodeProgress()
        progress(0, 1)
        wanted, fps = output_times(trajectory, time_choice(mode), playback=playback)
        times, notes = clamp_times(trajectory, wanted, extrapolate_s=extrapolate_s)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the notes are in the report
            samples = solve_batch_at_times(
                trajectory,
                times,
                [latent, *(more[name] for name in MORE_LATENTS if more.get(name) is not None)],
                method=method,
                rtol=rtol,
                atol=atol,
                faithful=faithful,
                fps=fps,
                anchor_s=anchor_s or None,
                later=[] if later is None else [LaterEdit(later, later_s)],
                variation=Variation(variation, variation_length_s, variation_seed),
                edit_limit=edit_limit,
                extrapolate_s=extrapolate_s,
                stream=True,
            )
        progress(1, 1)
        report = [f"WARNING: {note}" for note in notes] + [sample_report(sample) for sample in samples]
        return io.NodeOutput(samples, "\n".join(report))


def time_choice(mode: Mapping[str, Any]) -> TimeChoice:
    """The value of the input mode as a choice of times."""
    chosen = mode["mode"]
    if chosen == "curve":
        factor = Fraction(str(round(mode["frames_per_frame"], 4)))
        return RemapTimes(mode["curve"], factor, mode["bend"], mode["repeats"], mode["ramp_speed"])
    specs = {"factor": "x{factor}", "count": "{count} frames", "fps": "{fps:g} fps", "list": "{times}", "same": "same"}
    return parse_times(specs[chosen].format(**mode))


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
                io.DynamicCombo.Option("curve", _CURVE),
            ],
            tooltip="Which times: those of the clip's frames, n times as many steps, a number of frames, a frame rate, "
            "a list of seconds, or a curve through the clip.",
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
            step=1e-9,
            tooltip="Relative tolerance of adaptive solvers.",
            advanced=True,
        ),
        io.Float.Input(
            "atol",
            default=1e-6,
            min=1e-10,
            max=1e-1,
            step=1e-10,
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
        *_later_inputs(),
        *_variation_inputs(),
    ]


def _later_inputs() -> list[io.Input]:
    """When edits are put in, and further edits."""
    return [
        io.Float.Input(
            "anchor_s",
            default=0.0,
            min=0.0,
            max=100_000.0,
            step=0.01,
            tooltip="Second of the clip at which the edit is put in; from there it is carried forward and backward.",
            optional=True,
            advanced=True,
        ),
        io.Float.Input(
            "later_s",
            default=1.0,
            min=0.0,
            max=100_000.0,
            step=0.01,
            tooltip="Second of the clip at which the edit has become the one connected to later.",
            optional=True,
            advanced=True,
        ),
        sockets.Latent.Input(
            "later",
            optional=True,
            lazy=True,
            tooltip="From Edit First Latent: what the edit becomes by later_s. Between anchor_s and later_s the face "
            "glides from one to the other.",
        ),
        *(
            sockets.Latent.Input(
                name, optional=True, lazy=True, tooltip="Another edit of the same clip, solved along in the same batch."
            )
            for name in MORE_LATENTS
        ),
    ]


def _variation_inputs() -> list[io.Input]:
    """Random variation, times outside the clip, and how far an edit may go."""
    return [
        io.Float.Input(
            "variation",
            default=0.0,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="Random sway around the path, as a share of how much the codes move in the clip. 0 is none; 0.1 is "
            "slight.",
            optional=True,
            advanced=True,
        ),
        io.Float.Input(
            "variation_length_s",
            default=0.5,
            min=0.01,
            max=1000.0,
            step=0.01,
            tooltip="Seconds over which the sway changes.",
            optional=True,
            advanced=True,
        ),
        io.Int.Input(
            "variation_seed",
            default=0,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip="Of the sway. Same seed, same sway.",
            optional=True,
            advanced=True,
        ),
        io.Float.Input(
            "extrapolate_s",
            default=0.0,
            min=0.0,
            max=1000.0,
            step=0.05,
            tooltip="Times outside the clip: 0 holds the first and last face. More lets the motion go on and die away "
            "over so many seconds: a guess.",
            optional=True,
            advanced=True,
        ),
        io.Float.Input(
            "edit_limit",
            default=EDIT_LIMIT,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip="Adds less of the edit where the clip already goes that way: a smile on a grin. At most this many "
            "times the further of the edit and the clip's own motion along it. 0 adds it in full everywhere.",
            optional=True,
        ),
    ]


NODES = [SolveAtTimes]
