"""Edit Over Time and Transfer Edit: when an edit counts, and whose clip it changes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dynode_core.editing import first_latent
from ..dynode_core.editing.over_time import BETWEEN, edit_over_time, listed_factors, parse_curve
from ..dynode_core.editing.transfer import transfer_edit
from ..dynode_core.types import EditedLatent, TrajectorySample
from . import sockets
from .devices import outside_inference_mode
from .find_directions import flat_numbers
from .layers import check_layers, layers_input


class EditOverTime(io.ComfyNode):
    """Strength as a curve over the clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_EditOverTime",
            display_name="Edit Over Time",
            category=sockets.CATEGORY,
            description="Lets an edit grow, fade or come and go over the clip. Goes between Solve At Times and "
            "StyleGAN2 Render.",
            search_aliases=["strength curve", "keyframe edit", "fade in", "animate edit", "schedule", "dynode"],
            inputs=[
                sockets.Sample.Input("sample", tooltip="From Solve At Times, with an edit."),
                io.String.Input(
                    "curve",
                    default="0:0, end:1",
                    tooltip="Times and how much of the edit there is: '0:0, 2.5s:1, end:0.3'. Times in seconds of the "
                    "clip, in %, or start and end. One number alone holds everywhere. 1 is the edit in full, 0 none.",
                ),
                io.Combo.Input(
                    "between",
                    options=list(BETWEEN),
                    default=BETWEEN[0],
                    tooltip="From one entry to the next: eased, evenly, or at once when the next is reached.",
                ),
                io.Float.Input(
                    "strengths",
                    optional=True,
                    force_input=True,
                    tooltip="Instead of the curve: a list with one number for each frame, or any length, which is "
                    "then stretched over the clip.",
                ),
            ],
            outputs=[
                sockets.Sample.Output(
                    id="sample", display_name="sample", tooltip="For StyleGAN2 Render.", is_output_list=True
                )
            ],
            is_input_list=True,
        )

    @classmethod
    def validate_inputs(cls, curve: Any = None) -> bool | str:
        text = curve[0] if isinstance(curve, list) and curve else curve
        if isinstance(text, str):
            try:
                parse_curve(text)
            except ValueError as error:
                return str(error)
        return True

    @classmethod
    @outside_inference_mode
    def execute(
        cls, sample: list[TrajectorySample], curve: list[str], between: list[str], strengths: list[Any] | None = None
    ) -> io.NodeOutput:
        listed = flat_numbers(strengths or [])
        parsed, results = parse_curve(curve[0], between[0]), []
        for one in sample:
            factors = listed_factors(listed, len(one.times)) if listed else parsed.at(one.times)
            label = f"{len(listed)} strengths over time" if listed else f"over time {curve[0].strip()}"
            results.append(edit_over_time(one, factors, label))
        return io.NodeOutput(results)


class TransferEdit(io.ComfyNode):
    """The edit of one clip for another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_TransferEdit",
            display_name="Transfer Edit",
            category=sockets.CATEGORY,
            description="Takes what was changed in one clip and changes another clip in the same way. Only the change "
            "moves over, not the person.",
            search_aliases=["copy edit", "apply edit to another clip", "batch edit", "dynode"],
            inputs=[
                sockets.Latent.Input("edit", tooltip="From Edit First Latent of the first clip."),
                io.MultiType.Input(
                    "to",
                    types=[sockets.Trajectory, sockets.Codes, sockets.Latent],
                    tooltip="The other clip: its trajectory or codes, or an edit of it to add to.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much of the edit: 1 is as in the first clip.",
                ),
                layers_input("Rows of the code that are changed"),
            ],
            outputs=[
                sockets.Latent.Output(
                    id="latent", display_name="latent", tooltip="For Solve At Times of the other clip."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        return True if layers is None else check_layers(layers)

    @classmethod
    @outside_inference_mode
    def execute(cls, edit: EditedLatent, to: Any, strength: float, layers: str) -> io.NodeOutput:
        return io.NodeOutput(transfer_edit(edit, first_latent(to), strength, layers))


NODES = [EditOverTime, TransferEdit]
