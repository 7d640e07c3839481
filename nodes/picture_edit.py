"""Edit From Picture and Carry Texture: what another program painted on one frame, in the whole clip."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynode_core.blending.textured import TexturedFaces
from ..dynode_core.checks import check_family
from ..dynode_core.editing import first_latent
from ..dynode_core.editing.from_image import QUALITIES, PictureSettings, fit_picture
from ..dynode_core.editing.picture_change import compare_pictures
from ..dynode_core.editing.picture_frames import code_at, codes_of
from ..dynode_core.layout import network_to_bytes, network_to_pictures
from ..dynode_core.memory import reuse_large_blocks
from ..dynode_core.types import AlignedClip, FaceTexture
from . import sockets
from .devices import LoadedGenerator, outside_inference_mode
from .face_finder import face_finder
from .judges import identity_on, perceptual_on
from .layers import check_layers, layers_input
from .pictures import frames_wanted, gather_faces, picture_frames_input, sheet
from .progress import NodeProgress

_log = logging.getLogger(__name__)


class EditFromPicture(io.ComfyNode):
    """A painted frame becomes a change of the code, and a texture for the rest."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_EditFromPicture",
            display_name="Edit From Picture",
            category=sockets.CATEGORY,
            description="Turns one frame that other nodes have edited (inpainted, painted, instructed) into an edit of "
            "the whole clip. The report says how much of it the generator can express. The rest goes out as a texture, "
            "which Carry Texture moves with the face.",
            search_aliases=["edited frame", "inpaint video face", "paint on face", "make-up", "propagate", "dynode"],
            inputs=_edit_inputs(),
            outputs=[
                sockets.Latent.Output(
                    id="latent",
                    display_name="latent",
                    tooltip="For Solve At Times, or for another edit after this one.",
                ),
                sockets.Texture.Output(
                    id="texture",
                    display_name="texture",
                    tooltip="What the generator cannot express. For Carry Texture, after StyleGAN2 Render.",
                ),
                io.Image.Output(
                    id="preview",
                    display_name="preview",
                    tooltip="The frame, the edited frame, what the generator makes of it, and what it cannot express "
                    "(grey is nothing).",
                ),
                io.Image.Output(
                    id="residual",
                    display_name="residual",
                    tooltip="What the generator cannot express, around grey, at the size of FrameAlign's crops.",
                ),
                io.String.Output(id="report", display_name="report", tooltip="The same in figures."),
            ],
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        return True if layers is None else check_layers(layers)

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        latent: Any,
        generator: LoadedGenerator,
        aligned: AlignedClip,
        edited_picture: Tensor,
        strength: float,
        layers: str,
        quality: str,
        frame: int,
        support: int,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        start, codes = first_latent(latent), codes_of(latent, aligned)
        check_family("The latent", start.family, generator.family)
        base = code_at(start, codes, aligned, frame)
        model, find_faces = generator.ready(), face_finder()
        change = compare_pictures(
            aligned,
            edited_picture[:1].clone(),
            frame_index=frame,
            mask=None if mask is None else mask[:1].clone(),
            find_faces=find_faces,
            identity=None if find_faces is None else identity_on(torch.device("cpu")),
        )
        found = fit_picture(
            start,
            change,
            aligned,
            model,
            PictureSettings(strength, layers, quality, support),
            perceptual=perceptual_on(model.device),
            codes=codes,
            base=base,
            progress=NodeProgress(),
        )
        for note in found.report.notes:
            _log.warning("Edit From Picture: %s", note)
        picture = sheet(list(network_to_bytes(found.pictures)), columns=4)
        residual, report = network_to_pictures(found.pictures[3:]), found.report.text()
        shown = ui.PreviewImage(picture, cls=cls)
        return io.NodeOutput(found.latent, found.texture, picture, residual, report, ui=shown)


class CarryTexture(io.ComfyNode):
    """The texture of an edited picture on rendered faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_CarryTexture",
            display_name="Carry Texture",
            category=sockets.CATEGORY,
            description="Puts what the generator cannot draw (a moustache, a tattoo, fine skin) onto the rendered "
            "faces: a texture from Edit From Picture, moved with the mesh of the face. It fades where the face turns "
            "away. Goes between StyleGAN2 Render and Blend Back.",
            search_aliases=["tattoo", "moustache", "face paint", "texture warp", "project paint", "dynode"],
            inputs=[
                sockets.Faces.Input("faces", tooltip="From StyleGAN2 Render."),
                sockets.Aligned.Input("aligned", tooltip="From FrameAlign: how the face moves."),
                sockets.Texture.Input("texture", tooltip="From Edit From Picture."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the texture is seen. 0 leaves the faces as they are.",
                ),
                picture_frames_input("images"),
            ],
            outputs=[
                sockets.Faces.Output(id="faces", display_name="faces", tooltip="For Blend Back."),
                io.Image.Output(
                    id="images",
                    display_name="images",
                    tooltip="The faces as pictures: the first one, or all; see picture_frames.",
                ),
            ],
        )

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def execute(
        cls, faces: Any, aligned: AlignedClip, texture: FaceTexture | None, strength: float, picture_frames: str
    ) -> io.NodeOutput:
        carried = faces
        if texture is not None and strength > 0:
            carried = TexturedFaces(faces, aligned, texture, strength=strength)
        wanted, progress = frames_wanted(picture_frames, carried.num_frames, carried.size, carried.size), NodeProgress()

        def read(start: int, stop: int) -> Tensor:
            progress(start, wanted)
            piece: Tensor = carried.read(start, stop)
            progress(stop, wanted, network_to_bytes(piece[-1:])[0])
            return piece

        with reuse_large_blocks():
            pictures = gather_faces(read, wanted, 1)
        return io.NodeOutput(carried, pictures)


def _edit_inputs() -> list[io.Input]:
    return [
        io.MultiType.Input(
            "latent",
            types=[sockets.Trajectory, sockets.Codes, sockets.Latent],
            tooltip="What to edit: the trajectory, the codes of the inversion, or an earlier edit to add to. With the "
            "first two, other frames of the clip help to find an edit that holds in all of them.",
        ),
        sockets.Generator.Input("generator", tooltip="The generator that the clip was inverted with."),
        sockets.Aligned.Input("aligned", tooltip="FrameAlign's clip: what the frame looked like before."),
        io.Image.Input(
            "edited_picture",
            tooltip="The edited frame: the whole frame, or FrameAlign's crop. If it was moved or resized, it is laid "
            "over the frame by the face.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=-2.0,
            max=2.0,
            step=0.05,
            tooltip="Factor on the change that the generator makes. 0 leaves all of it to the texture, negative goes "
            "the other way (without texture).",
        ),
        layers_input("Rows of the code that may change"),
        io.Combo.Input(
            "quality",
            options=list(QUALITIES),
            default="normal",
            tooltip="How long to search: 'draft' finds shapes and broad colours, 'fine' takes about three times as "
            "long as 'normal'.",
        ),
        io.Int.Input(
            "frame",
            default=0,
            min=0,
            max=10**6,
            tooltip="Number of the frame that was edited; 0 is the first. Choose one that shows the place well.",
            advanced=True,
        ),
        io.Int.Input(
            "support",
            default=2,
            min=0,
            max=8,
            tooltip="So many other frames have to show the same change, so that it holds when the face moves. 0 looks "
            "at the edited frame only.",
            advanced=True,
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="White where the picture was edited, such as the mask of an inpainting. Without it every visible "
            "difference counts.",
        ),
    ]


NODES = [EditFromPicture, CarryTexture]
