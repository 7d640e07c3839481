"""Edit By Text: words become an edit, through ComfyUI's own CLIP."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io, ui

from ..dynode_core.checks import check_family
from ..dynode_core.editing import first_latent
from ..dynode_core.editing.picture_change import largest_mesh
from ..dynode_core.editing.text import ImageLoss, TextSettings, edit_by_text, words_direction
from ..dynode_core.generators.sampling import LARGEST_SEED
from ..dynode_core.inversion.identity_loss import IdentityLoss, face_grid
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.rendering import render
from ..dynode_core.tuned_weights import first_set
from ..dynode_core.types import EditedLatent
from . import sockets
from .clip_encoders import image_embedder, text_embedding
from .devices import LoadedGenerator, outside_inference_mode
from .edit import before_and_after
from .face_finder import face_finder
from .judges import identity_on
from .layers import check_layers, layers_input
from .progress import NodeProgress

_log = logging.getLogger(__name__)
DEFAULTS = TextSettings()
IDENTITY_PX = 512


class EditByText(io.ComfyNode):
    """Latent optimisation towards a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_EditByText",
            display_name="Edit By Text",
            category=sockets.CATEGORY,
            description="Searches for the change of the first face that a text describes, with ComfyUI's CLIP and CLIP "
            "Vision (both of one CLIP model). Solve At Times then carries it through the clip.",
            search_aliases=["styleclip", "text edit", "prompt", "clip guided", "words", "dynode"],
            inputs=_inputs(),
            outputs=[
                sockets.Latent.Output(
                    id="latent",
                    display_name="latent",
                    tooltip="For Solve At Times, or for another edit after this one.",
                ),
                io.Image.Output(id="preview", display_name="preview", tooltip="The first face before and after."),
                io.String.Output(id="report", display_name="report", tooltip="How far the words were followed."),
            ],
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None, text: str | None = None) -> bool | str:
        if text is not None and not text.strip():
            return "text is empty: say what the face should look like, such as 'a face with a beard'."
        return True if layers is None else check_layers(layers)

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        latent: Any,
        generator: LoadedGenerator,
        clip: Any,
        clip_vision: Any,
        text: str,
        neutral_text: str,
        seed: int,
        **settings: Any,
    ) -> io.NodeOutput:
        start = first_latent(latent)
        check_family("The latent", start.family, generator.family)
        neutral = text_embedding(clip, neutral_text) if neutral_text.strip() else None
        direction = words_direction(text_embedding(clip, text), neutral)
        embed, model = image_embedder(clip_vision), generator.ready()
        chosen = TextSettings(seed=seed, **settings)
        identity = _identity_of(start, model) if chosen.identity > 0 else None
        found = edit_by_text(
            start, model, embed, direction, chosen, label=text.strip(), identity=identity, progress=NodeProgress()
        )
        picture = before_and_after(found.latent, model)
        report = f"Agreement of the picture with the words: {found.before:.3f} before, {found.after:.3f} after."
        return io.NodeOutput(found.latent, picture, report, ui=ui.PreviewImage(picture, cls=cls))


def _identity_of(latent: EditedLatent, model: Any) -> ImageLoss | None:
    """The identity loss against the face as it is now; None with a line in the log where it can't be had."""
    find_faces, network = face_finder(), identity_on(model.device)
    if find_faces is None or network is None:
        return None
    size = min(IDENTITY_PX, model.resolution)
    image = render(model, latent.w_plus_0[None], tuning=first_set(latent.tuning), size=size)
    mesh = largest_mesh(find_faces(network_to_bytes(image)[0]), size)
    if mesh is None:
        _log.warning("Edit By Text: no face was found in the generator's picture, so the person is not watched.")
        return None
    return IdentityLoss(network, image.to(model.device), face_grid(mesh).to(model.device))


def _inputs() -> list[io.Input]:
    return [
        io.MultiType.Input(
            "latent",
            types=[sockets.Trajectory, sockets.Codes, sockets.Latent],
            tooltip="What to edit: the trajectory, the codes of the inversion, or an earlier edit to add to.",
        ),
        sockets.Generator.Input("generator", tooltip="The generator that the clip was inverted with."),
        io.Clip.Input("clip", tooltip="From Load CLIP: the text encoder of a CLIP model, with its projection."),
        io.ClipVision.Input("clip_vision", tooltip="From Load CLIP Vision: the image encoder of the same CLIP model."),
        io.String.Input(
            "text",
            default="a smiling face",
            multiline=True,
            tooltip="What the face should look like, as a description of the picture.",
        ),
        io.String.Input(
            "neutral_text",
            default="a face",
            tooltip="The same without what should change: only the difference counts. Empty: the text alone.",
        ),
        io.Float.Input(
            "strength",
            default=DEFAULTS.strength,
            min=-2.0,
            max=3.0,
            step=0.05,
            tooltip="Factor on the change that was found. Negative goes the other way.",
        ),
        io.Int.Input("steps", default=DEFAULTS.steps, min=1, max=1000, tooltip="Steps of the search."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=LARGEST_SEED,
            control_after_generate=False,
            tooltip="Of the crops that CLIP looks at. Another seed finds a slightly different change.",
        ),
        io.Float.Input(
            "distance",
            default=DEFAULTS.distance,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip="How strongly the face is held near to what it was: higher changes less.",
        ),
        io.Float.Input(
            "identity",
            default=DEFAULTS.identity,
            min=0.0,
            max=5.0,
            step=0.05,
            tooltip="How strongly the face is held to be the same person. Needs the face embedder of the README.",
        ),
        layers_input("Rows of the code that may change"),
        io.Float.Input(
            "learning_rate",
            default=DEFAULTS.learning_rate,
            min=0.001,
            max=1.0,
            step=0.001,
            tooltip="Length of a step of the search, in standard deviations of the generator's codes.",
            advanced=True,
        ),
        io.Int.Input(
            "views",
            default=DEFAULTS.views,
            min=1,
            max=32,
            tooltip="Crops of the face that CLIP looks at in each step. More are steadier and take longer.",
            advanced=True,
        ),
    ]


NODES = [EditByText]
