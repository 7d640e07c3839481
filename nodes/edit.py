"""Edit First Latent: the one place where the clip is changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynode_core.checks import check_family
from ..dynode_core.editing import (
    apply_direction,
    edit_from_image,
    first_latent,
    latent_for,
    layer_mask,
    list_directions,
    load_direction,
)
from ..dynode_core.editing.calibration import visible_unit
from ..dynode_core.editing.code_range import distance_of_edit
from ..dynode_core.editing.direction_files import Edit
from ..dynode_core.editing.latent import check_direction_fits
from ..dynode_core.editing.picture_frames import codes_of
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.rendering import render
from ..dynode_core.tuned_weights import first_set
from ..dynode_core.types import AlignedClip, EditDirection, EditedLatent
from . import model_folders, sockets
from .devices import LoadedGenerator, outside_inference_mode
from .face_finder import face_finder
from .judges import perceptual_on
from .layers import check_layers, layers_input
from .pictures import sheet
from .progress import NodeProgress

NO_DIRECTION = "none"
DEFAULT_DIRECTION = "smile"
OWN_UNIT, VISIBLE_UNIT = "the direction's own unit", "visible change"
UNITS = (OWN_UNIT, VISIBLE_UNIT)
PREVIEW_PX = 512


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
                io.String.Output(
                    id="report",
                    display_name="report",
                    tooltip="The edits so far, and how far the code lies from the faces that the generator knows.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        return True if layers is None else check_layers(layers)

    @classmethod
    def fingerprint_inputs(cls, direction: str | None, keep: str | None = "", **_others: Any) -> Any:
        """ComfyUI gives None for what comes through a link."""
        return direction_stamps([direction or "", *split_names(keep or "")])

    @classmethod
    def check_lazy_status(
        cls,
        generator: LoadedGenerator,
        direction: str,
        layers: str,
        latent: Any = None,
        directions: Sequence[EditDirection] | None = None,
        which: int = 0,
        keep: str = "",
        **_others: Any,
    ) -> list[str]:
        """Refuse a direction or layers that cannot fit before `latent`, and with it the inversion, is computed."""
        model = generator.resting
        layer_mask(layers, model.num_ws)
        chosen = [_chosen(direction, directions, which, generator), *kept_directions(keep, directions, generator)]
        for edit in chosen:
            if edit is not None:
                check_direction_fits(edit, torch.Size((model.num_ws, model.w_dim)), generator.family)
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
        directions: Sequence[EditDirection] | None = None,
        which: int = 0,
        strength_in: str = OWN_UNIT,
        keep: str = "",
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
                codes=codes_of(latent, aligned),
                find_faces=face_finder(),
                progress=NodeProgress(),
            )
        edit = _chosen(direction, directions, which, generator)
        if edit is not None:
            if strength_in == VISIBLE_UNIT:
                judge, progress = perceptual_on(model.device), NodeProgress()
                strength *= visible_unit(edit, model, judge, layers=layers, progress=lambda: progress(0, 1))
            kept = kept_directions(keep, directions, generator)
            edited = apply_direction(edited, edit, strength, layers=layers, keep=kept)
        picture = before_and_after(edited, model)
        return io.NodeOutput(edited, picture, edit_report(edited, model), ui=ui.PreviewImage(picture, cls=cls))


def before_and_after(edited: EditedLatent, generator: Any) -> Tensor:
    """The first face before | after, `(1, S, 2 S, 3)` in [0, 1]."""
    codes = torch.stack([edited.base_w_plus_0, edited.w_plus_0])
    images = render(generator, codes, tuning=first_set(edited.tuning), size=min(PREVIEW_PX, generator.resolution))
    return sheet(list(network_to_bytes(images)), columns=2)


def edit_report(edited: EditedLatent, generator: Any) -> str:
    """The edits and the distance of the code, with a warning (logged, too) if it leaves the generator's range."""
    distance = distance_of_edit(edited.base_w_plus_0, edited.w_plus_0, generator)
    lines = [f"edits: {', '.join(edited.edits) or 'none'}", distance.text]
    if distance.is_far:
        warning = (
            "WARNING: this edit takes the code out of the range of faces that the generator knows, where pictures "
            f"break ({distance.text}). Use less strength or fewer layers."
        )
        logging.getLogger(__name__).warning(warning)
        lines.insert(0, warning)
    return "\n".join(lines)


def direction_files() -> dict[str, Path]:
    """The shipped directions and those in the user's folders, by name."""
    return list_directions(model_folders.folders(model_folders.DIRECTIONS))


def direction_names() -> list[str]:
    """What lists of directions offer."""
    return list(direction_files())


def load_named(direction: str, generator: LoadedGenerator) -> Edit:
    """A direction of that list, for this generator."""
    return load_direction(direction, model_folders.folders(model_folders.DIRECTIONS), family=generator.family)


def kept_directions(names: str, directions: Sequence[EditDirection] | None, generator: LoadedGenerator) -> list[Edit]:
    """The directions of a list of names with commas between them: connected ones first, then those of the list."""
    connected = {direction.name: direction for direction in directions or ()}
    return [connected[name] if name in connected else load_named(name, generator) for name in split_names(names)]


def split_names(names: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in names.split(",") if name.strip()]


def direction_stamps(names: Sequence[str]) -> list[Any]:
    """What tells ComfyUI that one of the files behind names of directions was replaced."""
    files = direction_files()
    paths = [(name, files.get(name)) for name in names]
    return [model_folders.file_stamp(name, path) if path and path.exists() else name for name, path in paths]


def _chosen(
    direction: str, directions: Sequence[EditDirection] | None, which: int, generator: LoadedGenerator
) -> Edit | None:
    """The edit of the node: one of the connected directions, else that of the list."""
    if directions:
        return picked(directions, which)
    return None if direction == NO_DIRECTION else load_named(direction, generator)


def picked(directions: Sequence[EditDirection], which: int) -> EditDirection:
    """One of several, counted from 0.

    Raises:
        ValueError: there are not so many.
    """
    if not 0 <= which < len(directions):
        raise ValueError(f"which should be 0 to {len(directions) - 1} for these directions, but is {which}.")
    return directions[which]


def _inputs() -> list[io.Input]:
    names = [NO_DIRECTION, *direction_names()]
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
        layers_input("Rows of the code that the direction is added to"),
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
            "frame, after any image nodes. Edit From Picture does the same with a mask, layers and a report.",
        ),
        sockets.Aligned.Input(
            "aligned",
            optional=True,
            tooltip="FrameAlign's clip: needed with edited_first_frame to know what was changed.",
        ),
        *_found_inputs(),
    ]


def _found_inputs() -> list[io.Input]:
    """Directions that other nodes found, what strength means, and what stays as it is."""
    return [
        sockets.Directions.Input(
            "directions",
            optional=True,
            tooltip="From Find Directions or Direction From Scores; then the list of directions is not used.",
        ),
        io.Int.Input(
            "which",
            default=0,
            min=0,
            max=511,
            tooltip="Which of the connected directions, counted from 0.",
            optional=True,
            advanced=True,
        ),
        io.Combo.Input(
            "strength_in",
            options=list(UNITS),
            default=OWN_UNIT,
            tooltip="What a strength of 1 means: as the direction was made, or a change that is as visible for every "
            "direction (measured on generated faces, once for each direction).",
            optional=True,
            advanced=True,
        ),
        io.String.Input(
            "keep",
            default="",
            tooltip="Directions whose attribute stays as it is, with commas between them: 'yaw, pitch'. For shipped "
            "ones by what was measured, else what they have in common with the edit is taken out of it.",
            optional=True,
            advanced=True,
        ),
    ]


NODES = [EditFirstLatent]
