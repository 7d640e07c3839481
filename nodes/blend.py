"""Blend Back: the faces return into the original frames."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import InputImpl, io, ui

from ..dynode_core.blending import BlendSettings
from ..dynode_core.export import export_video
from ..dynode_core.rendering import FaceFrames, PictureFaces
from ..dynode_core.types import AlignedClip
from . import sockets
from .clips import save_audio, temp_file
from .devices import outside_inference_mode
from .pictures import frames_wanted, picture_frames_input
from .progress import NodeProgress


class BlendBack(io.ComfyNode):
    """Warp, mask, blend, encode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_BlendBack",
            display_name="Blend Back",
            category=sockets.CATEGORY,
            description="Puts the faces back into the original frames behind a soft mask. Pixels outside the mask are exactly "
            "the original ones. Streams: the length of the clip costs no memory.",
            search_aliases=["paste face", "composite face", "face swap back", "stitch face", "uncrop", "dynode"],
            inputs=_inputs(),
            outputs=[
                io.Video.Output(id="video", display_name="video", tooltip="The finished clip, with its sound."),
                io.Image.Output(id="images", display_name="images", tooltip="The finished frames as pictures."),
            ],
        )

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def execute(
        cls,
        faces: Any,
        aligned: AlignedClip,
        mode: str,
        region: str,
        dilate: float,
        feather: float,
        keep_audio: bool,
        quality: int,
        picture_frames: str,
        mask: torch.Tensor | None = None,
        audio: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        ...


NODES = [BlendBack]
