"""Edit First Latent: the one place where the clip is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynode_core.checks import check_family
from ..dynode_core.editing import (
    LAYER_PRESETS,
    apply_direction,
    edit_from_image,
    first_latent,
    latent_for,
    layer_mask,
    list_directions,
    load_direction,
)
from ..dynode_core.editing.direction_files import Edit
from ..dynode_core.editing.latent import check_direction_fits
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.rendering import render
from ..dynode_core.types import AlignedClip, EditedLatent
from . import model_folders, sockets
from .devices import LoadedGenerator, outside_inference_mode
from .judges import perceptual_on
from .pictures import sheet
from .progress import NodeProgress

NO_DIRECTION = "none"
DEFAULT_DIRECTION = "smile"
PREVIEW_PX = 512
MOST_ROWS = 1000
"""More rows than any generator has: a layer range is checked against it before the generator is known."""


class EditFirstLatent(io.ComfyNode):
    """Move the first frame's code; the trajectory carries the change through the clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_EditFirstLatent",
            display_name="Edit First Latent",
            category=sockets.CATEGORY,
            description="Edits the first frame only: along a direction (smile, yaw, ...), or towards a picture of the "
            "edited first face. Solve At Times then carries the edit through the clip. Several of these nodes can be "
            "chained.",
            search_aliases=["smile", "age", "latent direction", "gan edit", "interfacegan", "edit face", "dynode"],
            inputs=_inputs(),
            outputs=[
                sockets.Latent.Output(
                    id="latent",
                    display_name="latent",
                    tooltip="For Solve At Times, or for another edit after this one.",
                ),
                io.Image.Output(id="preview", display_name="preview", tooltip="The first face before and after."),
            ],
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        return True if layers is None else check_layers(layers)

    @classmethod
    def fingerprint_inputs(cls, direction: str, **_others: Any) -> Any:
        path = _direction_files().get(direction)
        if path is None or not path.exists():
            return direction
        return model_folders.file_stamp(direction, path)

    @classmethod
    def check_lazy_status(
        cls, generator: LoadedGenerator, direction: str, layers: str, latent: Any = None, **_others: Any
    ) -> list[str]:
        """Refuse a direction or layers that cannot fit before `latent`, and with it the inversion, is computed."""
        model = generator.resting
        layer_mask(layers, model.num_ws)
        if direction != NO_DIRECTION:
            shape = torch.Size((model.num_ws, model.w_dim))
            check_direction_fits(_load(direction, generator), shape, generator.family)
        return ["latent"] if latent is None else []

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        latent: Any,
        generator: LoadedGenerator,
        direction: str,
        strength: float,
        layers: str,
        picture_strength: float,
        edited_first_frame: Tensor | None = None,
        aligned: AlignedClip | None = None,
    ) -> io.NodeOutput:
        edited = first_latent(latent)
        if isinstance(latent, EditedLatent):
            resting = generator.resting
            edited = latent_for(edited, generator.family, torch.Size((resting.num_ws, resting.w_dim)))
        check_family("The latent", edited.family, generator.family)
        if (edited_first_frame is None) != (aligned is None):
            raise ValueError(
                "edited_first_frame and aligned are needed together: the picture says what the first face should look "
                "like, aligned says what it looked like before. Connect both or neither."
            )
        model = generator.ready()
        if edited_first_frame is not None and aligned is not None:
            edited = edit_from_image(
                edited,
                edited_first_frame[:1].clone(),
                aligned,
                model,
                perceptual=perceptual_on(model.device),
                strength=picture_strength,
                progress=NodeProgress(),
            )
        if direction != NO_DIRECTION:
            edited = apply_direction(edited, _load(direction, generator), strength, layers=layers)
        picture = before_and_after(edited, model)
        return io.NodeOutput(edited, picture, ui=ui.PreviewImage(picture, cls=cls))


def check_layers(layers: str) -> bool | str:
    """True, or what is wrong with a layer range, before the generator is known."""
    try:
        layer_mask(layers, MOST_ROWS)
    except ValueError:
        presets = ", ".join(repr(name) for name in LAYER_PRESETS)
        return f"layers should be one of {presets}, or rows such as '0-7' or '2,4-6', but is {layers!r}."
    return True


def before_and_after(edited: EditedLatent, generator: Any) -> Tensor:
    """The first face before | after, `(1, S, 2 S, 3)` in [0, 1]."""
    codes = torch.stack([edited.base_w_plus_0, edited.w_plus_0])
    images = render(generator, codes, tuning=edited.tuning, size=min(PREVIEW_PX, generator.resolution))
    return sheet(list(network_to_bytes(images)), columns=2)


def _direction_files() -> dict[str, Path]:
    return list_directions(model_folders.folders(model_folders.DIRECTIONS))


def _load(direction: str, generator: LoadedGenerator) -> Edit:
    return load_direction(direction, model_folders.folders(model_folders.DIRECTIONS), family=generator.family)


def _inputs() -> list[io.Input]:
    names = [NO_DIRECTION, *_direction_files()]
    return [
        io.MultiType.Input(
            "latent",
            types=[sockets.Trajectory, sockets.Codes, sockets.Latent],
            lazy=True,
            tooltip="What to edit: the trajectory, the codes of the inversion, or an earlier edit to add to.",
        ),
        sockets.Generator.Input("generator", tooltip="The generator that the clip was inverted with."),
        io.Combo.Input(
            "direction",
            options=names,
            default=DEFAULT_DIRECTION if DEFAULT_DIRECTION in names else NO_DIRECTION,
            tooltip="What changes. The list holds the shipped directions and the files in models/latent_directions.",
        ),
        io.Float.Input(
            "strength",
            default=2.0,
            min=-20.0,
            max=20.0,
            step=0.1,
            tooltip="How far to go; negative goes the other way. 0 changes nothing.",
        ),
        io.String.Input(
            "layers",
            default="all",
            tooltip="Rows of the code that the direction is added to: 'all', 'coarse (pose)', 'middle (shape)', 'fine "
            "(colour)', or rows such as '0-7' or '2,4-6'.",
            advanced=True,
        ),
        io.Float.Input(
            "picture_strength",
            default=1.0,
            min=0.0,
            max=2.0,
            step=0.05,
            tooltip="How far to go towards edited_first_frame, if one is connected.",
            advanced=True,
        ),
        io.Image.Input(
            "edited_first_frame",
            optional=True,
            tooltip="The first face as it should look: the first picture of FrameAlign's crops, or the whole first "
            "frame, after any image nodes.",
        ),
        sockets.Aligned.Input(
            "aligned",
            optional=True,
            tooltip="FrameAlign's clip: needed with edited_first_frame to know what was changed.",
        ),
    ]


NODES = [EditFirstLatent]
