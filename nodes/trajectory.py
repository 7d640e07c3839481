"""Fit Trajectory ODE and Solve At Times: the clip as a solution of a differential equation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..dynode_core.layout import bytes_to_pictures
from ..dynode_core.ode import TrajectorySettings, fit_trajectory, output_times, plot_trajectory, solve_at_times
from ..dynode_core.types import EditedLatent, InvertedClip, LatentTrajectory
from . import sockets
from .devices import outside_inference_mode
from .progress import NodeProgress

METHODS = ["dopri5", "parallel", "rk4", "euler", "midpoint", "heun3", "bosh3", "dopri8", "adaptive_heun", "tsit5"]


class FitTrajectory(io.ComfyNode):
    """Fit dz/dt = f(z, t) to the codes of the keyframes."""


class SolveAtTimes(io.ComfyNode):
    """Integrate the trajectory from the (edited) first code and take it at the wanted times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_SolveAtTimes",
            display_name="Solve At Times",
            category=sockets.CATEGORY,
            description="Solves the trajectory from the first code, edited or not, and takes its codes at the wanted times: the "
            "clip's own frames, in-between frames, another frame rate, or a list.",
            search_aliases=["ode solve", "slow motion", "interpolate frames", "retime", "frame rate", "odeint", "dynode"],
            inputs=_solve_inputs(),
            outputs=[
                sockets.Sample.Output(id="sample", display_name="sample", tooltip="For StyleGAN2 Render."),
                io.String.Output(id="report", display_name="report", tooltip="Times, solver and its work, as text."),
            ],
        )

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
        ...


NODES = [FitTrajectory, SolveAtTimes]
