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
        clip = aligned.clip
        source = PictureFaces(faces, clip.frame_times, clip.fps) if isinstance(faces, torch.Tensor) else faces
        kept = frames_wanted(picture_frames, source.num_frames, clip.height, clip.width)
        settings = BlendSettings(mode=mode, region=region, dilate=dilate, feather=feather)
        exported = export_video(
            temp_file(".mp4"),
            aligned,
            source,
            settings,
            masks=mask,
            sound=clip if keep_audio else None,
            keep=kept,
            crf=quality,
            progress=NodeProgress(),
        )
        shown = ui.SavedResult(exported.path.name, exported.path.parent.name, io.FolderType.temp)
        return io.NodeOutput(
            InputImpl.VideoFromFile(str(exported.path)), exported.kept, ui=ui.PreviewVideo([shown])
        )


def _inputs() -> list[io.Input]:
    return [
        io.MultiType.Input(
            "faces",
            types=[sockets.Faces, io.Image],
            tooltip="From StyleGAN2 Render. Pictures work too, if there is one for each frame of the clip.",
        ),
        sockets.Aligned.Input("aligned", tooltip="From FrameAlign: the original frames and where the faces belong."),
        io.Combo.Input("mode", options=["feather"], tooltip="How face and frame are joined."),
        io.Combo.Input("region", options=["face"], tooltip="What is replaced."),
        io.Float.Input("dilate", default=0.0, min=-0.5, max=0.5, step=0.01, tooltip="Grow the mask."),
        io.Float.Input("feather", default=0.1, min=0.0, max=0.5, step=0.01, tooltip="Soften its edge."),
        io.Boolean.Input(
            "keep_audio",
            default=True,
            tooltip="Put the sound of the clip into the video: copied at the same speed, stretched in slow motion.",
        ),
        io.Int.Input(
            "quality",
            default=16,
            min=0,
            max=40,
            tooltip="Of the encoder (CRF): 0 is lossless and large, 16 cannot be told from the source, 28 is small.",
            advanced=True,
        ),
        picture_frames_input("images"),
        io.Mask.Input("mask", optional=True, tooltip="Where faces may go: white lets them in, black keeps the original."),
        io.Audio.Input("audio", optional=True, tooltip="Sound to use instead of the clip's."),
    ]


NODES = [BlendBack]
