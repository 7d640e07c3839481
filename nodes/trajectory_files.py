"""Save and Load Trajectory: a fitted clip as a file, to solve later or elsewhere."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dynode_core.ode import load_trajectory, save_trajectory
from ..dynode_core.types import LatentTrajectory
from . import model_folders, sockets
from .devices import outside_inference_mode
from .saved_files import NO_FILE, prefix_input, stamp, write_output
from .trajectory import show_trajectory, trajectory_outputs


class SaveTrajectory(io.ComfyNode):
    """Write a trajectory into the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_SaveTrajectory",
            display_name="Save Trajectory",
            category=sockets.CATEGORY,
            description="Writes the trajectory to a safetensors file in ComfyUI's output folder. Load Trajectory reads "
            "it again, so that the clip need not be inverted anew.",
            search_aliases=["export trajectory", "save latent path", "save ode", "dynode"],
            inputs=[
                sockets.Trajectory.Input("trajectory", tooltip="From Fit Trajectory ODE."),
                prefix_input(model_folders.SAVED_TRAJECTORIES),
            ],
            outputs=[
                io.String.Output(id="path", display_name="path", tooltip="The file that was written."),
            ],
            is_output_node=True,
        )

    @classmethod
    @outside_inference_mode
    def execute(cls, trajectory: LatentTrajectory, filename_prefix: str) -> io.NodeOutput:
        return write_output(filename_prefix, lambda path: save_trajectory(trajectory, path))


class LoadTrajectory(io.ComfyNode):
    """Read a trajectory from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_folders.files(model_folders.TRAJECTORIES) or [NO_FILE]
        return io.Schema(
            node_id="DynODE_LoadTrajectory",
            display_name="Load Trajectory",
            category=sockets.CATEGORY,
            description="Reads a trajectory that Save Trajectory or the command line wrote. Nothing in such a file is "
            "ever executed.",
            search_aliases=["import trajectory", "load latent path", "load ode", "dynode"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=files,
                    default=files[0],
                    tooltip="Files in models/latent_trajectories, and in the folder trajectories of the output folder.",
                )
            ],
            outputs=trajectory_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return stamp(model_folders.TRAJECTORIES, file)

    @classmethod
    @outside_inference_mode
    def execute(cls, file: str) -> io.NodeOutput:
        trajectory = load_trajectory(model_folders.full_path(model_folders.TRAJECTORIES, file))
        return show_trajectory(trajectory, cls)


NODES = [SaveTrajectory, LoadTrajectory]
