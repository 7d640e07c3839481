"""FrameAlign: find one face in every frame and cut it out the way the generator was trained."""

from __future__ import annotations

from typing import Any, cast

import torch
from comfy_api.latest import io

from ..dynode_core.faces.align import align_clip
from ..dynode_core.faces.crop import crop_clip
from ..dynode_core.faces.landmarks import FaceLandmarker
from ..dynode_core.faces.preview import draw_alignment
from ..dynode_core.faces.tracking import PICKS, Pick
from ..dynode_core.layout import pictures_to_bytes
from ..dynode_core.model_files import find_landmarker
from ..dynode_core.types import AlignedClip
from . import model_folders, sockets
from .clips import clip_of
from .devices import outside_inference_mode
from .pictures import frames_wanted, gather_faces, picture_frames_input, sheet, spread
from .progress import NodeProgress

CENTER_SIGMA = 1.0
AXES_SIGMA = 3.0
CROP_CHUNK = 8
PREVIEW_FRAMES = 6


class FrameAlign(io.ComfyNode):
    """Landmarks, a smoothed FFHQ quad per frame, crops."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_FrameAlign",
            display_name="FrameAlign",
            category=sockets.CATEGORY,
            description="Finds one face in every frame and cuts it out upright and centred, as the generator expects. "
            "A frame without a face keeps its place: its position is interpolated from its neighbours.",
            search_aliases=["face align", "ffhq align", "face crop", "landmarks", "face detect", "crop face", "dynode"],
            inputs=_inputs(),
            outputs=[
                sockets.Aligned.Output(
                    id="aligned", display_name="aligned", tooltip="The clip with the place of the face in every frame."
                ),
                io.Image.Output(id="crops", display_name="crops", tooltip="The face, upright and square."),
                io.Image.Output(
                    id="preview",
                    display_name="preview",
                    tooltip="A few frames with the crop drawn in: check here that it is the right face.",
                ),
            ],
        )

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def execute(
        cls,
        frames: Any,
        fps: float,
        which_face: str,
        face_index: int,
        smoothing: float,
        crop_size: int,
        crop_scale: float,
        picture_frames: str,
    ) -> io.NodeOutput:
        clip, progress = clip_of(frames, fps), NodeProgress()
        wanted = frames_wanted(picture_frames, clip.num_frames, int(crop_size), int(crop_size))
        with FaceLandmarker(find_landmarker(model_folders.folders(model_folders.LANDMARKERS))) as landmarker:
            aligned = align_clip(
                clip,
                landmarker,
                crop_size=int(crop_size),
                scale=crop_scale,
                center_sigma=CENTER_SIGMA * smoothing,
                axes_sigma=AXES_SIGMA * smoothing,
                pick=cast(Pick, which_face),
                face_index=face_index,
                progress=progress,
            )
        crops = gather_faces(lambda start, stop: crop_clip(aligned, range(start, stop)), wanted, CROP_CHUNK)
        return io.NodeOutput(aligned, crops, alignment_sheet(aligned))


def alignment_sheet(aligned: AlignedClip) -> torch.Tensor:
    """A few frames of the clip with quad and landmarks drawn: `(1, H, W, 3)` in [0, 1]."""
    tiles = []
    for index in spread(aligned.clip.num_frames, PREVIEW_FRAMES):
        frame = pictures_to_bytes(aligned.clip.read([index]))[0]
        detected = bool(aligned.track.detected[index])
        tiles.append(draw_alignment(frame, aligned.quads[index], aligned.track.landmarks[index], detected))
    return sheet(tiles)


def _inputs() -> list[io.Input]:
    return [
        io.MultiType.Input(
            "frames",
            types=[io.Video, io.Image],
            tooltip="The clip: a VIDEO (best: it is streamed from its file, with sound and exact times) or an IMAGE "
            "batch.",
        ),
        io.Float.Input(
            "fps",
            default=25.0,
            min=1.0,
            max=240.0,
            step=0.01,
            tooltip="Frames per second of an IMAGE batch. A VIDEO brings its own and this is not used.",
        ),
        io.Combo.Input(
            "which_face",
            options=list(PICKS),
            default=PICKS[0],
            tooltip="Which face to follow if there are several. It is chosen once and then followed through the clip.",
        ),
        io.Int.Input(
            "face_index",
            default=0,
            min=0,
            max=31,
            tooltip="0 takes the first face in that order, 1 the second, and so on.",
        ),
        io.Float.Input(
            "smoothing",
            default=1.0,
            min=0.0,
            max=5.0,
            step=0.1,
            tooltip="How much the crop's path is smoothed over time. 0 follows every detection and trembles; more is "
            "calmer but lags behind fast movement.",
        ),
        io.Combo.Input(
            "crop_size",
            options=["256", "512", "1024"],
            default="512",
            tooltip="Side of the crops in pixels. Inversion and the crops output use it.",
            advanced=True,
        ),
        io.Float.Input(
            "crop_scale",
            default=1.0,
            min=0.8,
            max=1.5,
            step=0.01,
            tooltip="1 is the framing that FFHQ generators were trained on. Other values make inversion worse.",
            advanced=True,
        ),
        picture_frames_input("crops"),
    ]


NODES = [FrameAlign]
