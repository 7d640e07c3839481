"""Load Encoder: a network that guesses the code of a face, where StyleGAN2 Invert then starts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dynode_core.inversion.encoders import load_encoder
from ..dynode_core.inversion.encoders.networks import KINDS
from . import model_folders, sockets
from .devices import hold_encoder, outside_inference_mode
from .saved_files import stamp

NO_FILES = "put files into models/stylegan2_encoders"
"""Shown instead of an empty list, which ComfyUI refuses."""
BY_FILE = "as the file says"


class LoadEncoder(io.ComfyNode):
    """Choose an encoder and hand it to ComfyUI's model manager."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found = model_folders.files(model_folders.ENCODERS) or [NO_FILES]
        return io.Schema(
            node_id="DynODE_LoadEncoder",
            display_name="Load Encoder",
            category=sockets.CATEGORY,
            description="Loads an encoder that was trained for the generator: e4e, pSp or ReStyle. StyleGAN2 Invert "
            "starts from its guesses instead of from an average face. Nothing in the file is run.",
            search_aliases=["e4e", "psp", "restyle", "pixel2style2pixel", "encoder4editing", "gan inversion", "dynode"],
            inputs=[
                io.Combo.Input(
                    "encoder_name",
                    options=found,
                    default=found[0],
                    tooltip="Files in models/stylegan2_encoders, for instance e4e_ffhq_encode.pt.",
                ),
                io.Combo.Input(
                    "kind",
                    options=[BY_FILE, *KINDS],
                    default=BY_FILE,
                    optional=True,
                    tooltip="Only for files that do not say it: Encoder4Editing is e4e, GradualStyleEncoder is pSp, "
                    "the others are ReStyle on pSp and on e4e.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Encoder.Output(id="encoder", display_name="encoder", tooltip="For StyleGAN2 Invert.")],
        )

    @classmethod
    def fingerprint_inputs(cls, encoder_name: str | None, kind: str | None = BY_FILE) -> Any:
        """ComfyUI gives None for what comes through a link: then what is linked tells whether it changed."""
        return stamp(model_folders.ENCODERS, encoder_name)

    @classmethod
    @outside_inference_mode
    def execute(cls, encoder_name: str, kind: str = BY_FILE) -> io.NodeOutput:
        if encoder_name == NO_FILES:
            raise FileNotFoundError(
                "There is no encoder yet. Put one (e4e, pSp or ReStyle, .pt) into models/stylegan2_encoders and press "
                "R in ComfyUI, or remove this node: StyleGAN2 Invert also works without."
            )
        path = model_folders.full_path(model_folders.ENCODERS, encoder_name)
        return io.NodeOutput(hold_encoder(load_encoder(path, kind=None if kind == BY_FILE else kind)))


NODES = [LoadEncoder]
