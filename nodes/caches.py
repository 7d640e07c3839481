"""Clear Caches: free what finished work left on the disk."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..dynode_core.tensor_cache import clear_folder, folder_bytes
from . import model_folders, sockets

KEYFRAMES, TRAINING, TUNING, ALL = "finished keyframes", "trained trajectories", "pivotal tuning", "all"
FOLDERS = {
    KEYFRAMES: ("keyframes",),
    TRAINING: ("trajectories",),
    TUNING: ("pivotal",),
    ALL: ("keyframes", "trajectories", "pivotal"),
}
MEBIBYTE = 2**20


class ClearCaches(io.ComfyNode):
    """Delete cached results."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_ClearCaches",
            display_name="Clear Caches",
            category=sockets.CATEGORY,
            description="Deletes what StyleGAN2 Invert, Fit Trajectory ODE and Pivotal Tuning keep on the disk so that "
            "interrupted work goes on. Each cache is bounded and drops its oldest entries by itself; clear it to start "
            "afresh.",
            search_aliases=["delete cache", "free disk", "reset inversion", "dynode"],
            inputs=[
                io.Combo.Input("what", options=list(FOLDERS), default=KEYFRAMES, tooltip="Which results are deleted."),
                io.Boolean.Input(
                    "delete",
                    default=False,
                    tooltip="On: deletes each time the workflow runs. Off: only says how much there is.",
                ),
            ],
            outputs=[
                io.String.Output(id="report", display_name="report", tooltip="How much was there, and what is left.")
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, what: str, delete: bool) -> float:
        return float("nan")  # never equal to itself: the disk may have changed

    @classmethod
    def execute(cls, what: str, delete: bool) -> io.NodeOutput:
        lines = []
        for name in FOLDERS[what]:
            folder = model_folders.cache_dir(name)
            size = folder_bytes(folder)
            if delete:
                clear_folder(folder)
            left = folder_bytes(folder)
            lines.append(f"{name}: {size / MEBIBYTE:.1f} MB, {left / MEBIBYTE:.1f} MB left")
        report = "\n".join(lines)
        return io.NodeOutput(report, ui=ui.PreviewText(report))


NODES = [ClearCaches]
