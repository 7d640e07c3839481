"""Blend Back: the faces return into the original frames."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from comfy_api.latest import InputImpl, io, ui

from ..dynode_core.blending import BlendSettings
from ..dynode_core.blending.settings import BACKGROUNDS, JOINS, MODES, WHOLE_CROP
from ..dynode_core.blending.several import on_frames_of
from ..dynode_core.export import export_video
from ..dynode_core.faces.masks import REGIONS
from ..dynode_core.faces.segmenter import FaceSegmenter
from ..dynode_core.rendering import PictureFaces
from ..dynode_core.types import AlignedClip, VideoClip
from . import model_folders, sockets
from .clips import clip_of, has_sound, sound_clip, temp_file
from .devices import outside_inference_mode
from .pictures import frames_wanted, picture_frames_input
from .progress import NodeProgress
from .saved_files import stamp

DEFAULTS = BlendSettings()
NO_SEGMENTER = "none"


class BlendBack(io.ComfyNode):
    """Warp, mask, blend, encode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_BlendBack",
            display_name="Blend Back",
            category=sockets.CATEGORY,
            description="Puts the faces back into the original frames behind a soft mask. Pixels outside the mask are "
            "exactly the original ones. Streams: the length of the clip costs no memory.",
            search_aliases=["paste face", "composite face", "face swap back", "stitch face", "uncrop", "dynode"],
            inputs=_inputs(),
            outputs=[
                io.Video.Output(id="video", display_name="video", tooltip="The finished clip, with its sound."),
                io.Image.Output(
                    id="images",
                    display_name="images",
                    tooltip="The finished frames as pictures: the first one, or all; see picture_frames.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, segmenter: str = NO_SEGMENTER, **_others: Any) -> Any:
        return segmenter if segmenter == NO_SEGMENTER else stamp(model_folders.LANDMARKERS, segmenter)

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def execute(
        cls,
        faces: Any,
        aligned: AlignedClip,
        keep_audio: bool,
        quality: int,
        picture_frames: str,
        segmenter: str = NO_SEGMENTER,
        mask: torch.Tensor | None = None,
        audio: dict[str, Any] | None = None,
        onto: Any = None,
        **settings: Any,
    ) -> io.NodeOutput:
        source: Any = _of_pictures(faces, aligned) if isinstance(faces, torch.Tensor) else faces
        heard = aligned.clip
        if onto is not None:
            aligned = on_frames_of(aligned, clip_of(onto, float(heard.fps)))
            heard = aligned.clip if has_sound(aligned.clip) else heard
        clip = aligned.clip
        kept = frames_wanted(picture_frames, source.num_frames, clip.height, clip.width)
        with _open_segmenter(segmenter) as finder:
            exported = export_video(
                temp_file(".mp4"),
                aligned,
                source,
                BlendSettings(**settings),
                masks=mask,
                finder=finder,
                sound=_sound(heard, audio) if keep_audio else None,
                keep=kept,
                crf=quality,
                progress=NodeProgress(),
            )
        shown = ui.SavedResult(exported.path.name, exported.path.parent.name, io.FolderType.temp)
        return io.NodeOutput(InputImpl.VideoFromFile(str(exported.path)), exported.kept, ui=ui.PreviewVideo([shown]))


def _open_segmenter(name: str) -> AbstractContextManager[FaceSegmenter | None]:
    if name == NO_SEGMENTER:
        return nullcontext()
    return FaceSegmenter(model_folders.full_path(model_folders.LANDMARKERS, name))


def _segmenters() -> list[str]:
    files = model_folders.files(model_folders.LANDMARKERS)
    return [NO_SEGMENTER, *(file for file in files if file.lower().endswith(".tflite"))]


def _sound(clip: VideoClip, audio: dict[str, Any] | None) -> VideoClip:
    return clip if audio is None else sound_clip(audio)


def _of_pictures(pictures: torch.Tensor, aligned: AlignedClip) -> PictureFaces:
    clip = aligned.clip
    if len(pictures) != clip.num_frames:
        raise ValueError(
            f"{len(pictures)} face pictures arrived, but the clip has {clip.num_frames} frames. Pictures carry no "
            "times, so there must be one for each frame: set picture_frames of StyleGAN2 Render to 'all frames' and "
            "mode of Solve At Times to 'same', or connect the faces output."
        )
    return PictureFaces(pictures, clip.frame_times, clip.fps)


def _inputs() -> list[io.Input]:
    return [
        io.MultiType.Input(
            "faces",
            types=[sockets.Faces, io.Image],
            tooltip="From StyleGAN2 Render. Pictures work too, if there is one for each frame of the clip.",
        ),
        sockets.Aligned.Input("aligned", tooltip="From FrameAlign: the original frames and where the faces belong."),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip="adaptive shows the made face where the edit changes features and keeps the original pixels "
            "elsewhere. residual adds what the edit changed to the original pixels everywhere. replace shows the face "
            "that the generator made. With adaptive and residual, no edit means no change.",
        ),
        io.Combo.Input(
            "region",
            options=[*REGIONS, WHOLE_CROP],
            default=DEFAULTS.region,
            tooltip="What may change. It follows the landmarks; 'whole crop' is the square around the face.",
        ),
        io.Float.Input(
            "dilate",
            default=DEFAULTS.dilate,
            min=-0.5,
            max=0.5,
            step=0.01,
            tooltip="Grows the region, or shrinks it below 0. In shares of the height of the face.",
        ),
        io.Float.Input(
            "feather",
            default=DEFAULTS.feather,
            min=0.0,
            max=0.5,
            step=0.01,
            tooltip="Width over which the edge of the region fades, in shares of the height of the face.",
        ),
        io.Boolean.Input(
            "colour_match",
            default=DEFAULTS.colour_match,
            tooltip="Give the made face the light and colour of the clip (modes adaptive and replace).",
            advanced=True,
        ),
        io.Combo.Input(
            "background",
            options=list(BACKGROUNDS),
            default=BACKGROUNDS[0],
            tooltip="What surrounds the face at times between two frames: both frames moved along the motion between "
            "them (flow), or the nearest frame.",
            advanced=True,
        ),
        io.Float.Input(
            "mask_smoothing",
            default=DEFAULTS.mask_smoothing,
            min=0.0,
            max=20.0,
            step=0.5,
            tooltip="How much the outline of the region is calmed over time, in frames.",
            advanced=True,
        ),
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
        io.Combo.Input(
            "join",
            options=list(JOINS),
            default=DEFAULTS.join,
            tooltip="How the change meets the frame: feather fades it, multiband fades light over a longer way than "
            "detail, poisson shifts its colours until they agree along the edge.",
            advanced=True,
        ),
        io.Boolean.Input(
            "grain",
            default=DEFAULTS.grain,
            tooltip="Give the made face as much camera grain as the clip has (mode replace).",
            advanced=True,
        ),
        io.Boolean.Input(
            "keep_occluders",
            default=DEFAULTS.keep_occluders,
            tooltip="Keep what stands before the face, such as a hand: found where the clip differs much from its "
            "reconstruction. A mask is surer.",
            advanced=True,
        ),
        io.Combo.Input(
            "segmenter",
            options=_segmenters(),
            default=NO_SEGMENTER,
            tooltip="A segmentation model of mediapipe in models/mediapipe, such as selfie_multiclass_256x256.tflite: "
            "hair, hands, clothes and background that it sees stay as they are.",
            optional=True,
            advanced=True,
        ),
        io.Boolean.Input(
            "detail_match",
            default=DEFAULTS.detail_match,
            tooltip="Make the made face as sharp as the clip (modes adaptive and replace). Small faces come back "
            "blurred without it.",
            optional=True,
            advanced=True,
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where the face may change: white lets the change in, black keeps the original, such as a hand in "
            "front of the face. One mask, or one per frame.",
        ),
        io.Audio.Input(
            "audio",
            optional=True,
            tooltip="Sound to use instead of the clip's, for frames that came as an IMAGE batch.",
        ),
        io.MultiType.Input(
            "onto",
            types=[io.Video, io.Image],
            optional=True,
            tooltip="For several people: the video of the Blend Back of another face of the same clip. This face is "
            "put into it.",
        ),
    ]


NODES = [BlendBack]
