"""Preview Directions: what directions do to this face, before anything long is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..dynode_core.checks import check_family
from ..dynode_core.editing import first_latent, latent_for, shipped_directions
from ..dynode_core.editing.calibration import visible_unit
from ..dynode_core.editing.direction_files import Edit
from ..dynode_core.editing.strip import draw_directions, parse_strengths
from ..dynode_core.layout import bytes_to_pictures
from ..dynode_core.types import EditDirection, EditedLatent
from . import sockets
from .devices import LoadedGenerator, outside_inference_mode
from .edit import OWN_UNIT, UNITS, VISIBLE_UNIT, direction_names, direction_stamps, load_named
from .judges import perceptual_on
from .layers import check_layers, layers_input
from .progress import NodeProgress

ALL_SHIPPED = "all shipped"


class PreviewDirections(io.ComfyNode):
    """A strip for one direction, a grid for several."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_PreviewDirections",
            display_name="Preview Directions",
            category=sockets.CATEGORY,
            description="Shows what directions do to the first face: one row for each direction, one column for each "
            "strength. Choose direction and strength here, before the clip is rendered.",
            search_aliases=["direction grid", "edit strip", "compare strengths", "try edits", "dynode"],
            inputs=_inputs(),
            outputs=[io.Image.Output(id="picture", display_name="picture", tooltip="The strip or grid.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None, strengths: str | None = None) -> bool | str:
        if strengths is not None:
            try:
                parse_strengths(strengths)
            except ValueError as error:
                return str(error)
        return True if layers is None else check_layers(layers)

    @classmethod
    def fingerprint_inputs(cls, direction: str | None, **_others: Any) -> Any:
        return direction_stamps([direction or ""])  # None: it comes through a link

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        latent: Any,
        generator: LoadedGenerator,
        direction: str,
        strengths: str,
        strength_in: str,
        layers: str,
        tile_px: int,
        directions: Sequence[EditDirection] | None = None,
    ) -> io.NodeOutput:
        model, progress = generator.ready(), NodeProgress()
        base = first_latent(latent)
        if isinstance(latent, EditedLatent):
            base = latent_for(base, generator.family, torch.Size((model.num_ws, model.w_dim)))
        check_family("The latent", base.family, generator.family)
        edits: list[Edit] = list(directions or ())
        if not edits:
            chosen = shipped_directions() if direction == ALL_SHIPPED else {}
            edits = list(chosen.values()) or [load_named(direction, generator)]
        units = None
        if strength_in == VISIBLE_UNIT:
            judge = perceptual_on(model.device)
            units = [visible_unit(edit, model, judge, layers=layers, progress=lambda: progress(0, 1)) for edit in edits]
        grid = draw_directions(
            base,
            model,
            edits,
            parse_strengths(strengths),
            units=units,
            layers=layers,
            tile_px=tile_px,
            progress=progress,
        )
        picture = bytes_to_pictures(grid)[None]
        return io.NodeOutput(picture, ui=ui.PreviewImage(picture, cls=cls))


def _inputs() -> list[io.Input]:
    return [
        io.MultiType.Input(
            "latent",
            types=[sockets.Trajectory, sockets.Codes, sockets.Latent],
            tooltip="The face to try them on: a trajectory, codes, an edit, or a face of Sample Latents.",
        ),
        sockets.Generator.Input("generator", tooltip="The generator that the codes belong to."),
        io.Combo.Input(
            "direction",
            options=[ALL_SHIPPED, *direction_names()],
            default=ALL_SHIPPED,
            tooltip="All directions that ship with the pack, or one of the list. Not used if directions is connected.",
        ),
        io.String.Input(
            "strengths", default="-2, -1, 0, 1, 2", tooltip="One column for each, with commas between them."
        ),
        io.Combo.Input(
            "strength_in",
            options=list(UNITS),
            default=OWN_UNIT,
            tooltip="What a strength of 1 means: as in Edit First Latent.",
        ),
        layers_input("Rows of the code that are changed"),
        io.Int.Input(
            "tile_px", default=192, min=64, max=512, step=32, tooltip="Side of each face in pixels.", advanced=True
        ),
        sockets.Directions.Input(
            "directions", optional=True, tooltip="From Find Directions or Direction From Scores: all of them are shown."
        ),
    ]


NODES = [PreviewDirections]
