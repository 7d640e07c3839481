"""FrameAlign: find one face in every frame and cut it out the way the generator was trained."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from comfy_api.latest import io

from ..dynode_core.faces.core_landmarks import detections_from_core
from ..dynode_core.faces.crop import crop_clip
from ..dynode_core.faces.detections import SEARCHES, Search
from ..dynode_core.faces.framing import FRAMINGS, AlignSettings, align_as_asked, quad_from_text
from ..dynode_core.faces.hints import hint_from_core_boxes, hint_from_mask, hint_from_point, point_from_text
from ..dynode_core.faces.landmarks import FaceLandmarker
from ..dynode_core.faces.preview import draw_alignment
from ..dynode_core.faces.quality import LEAST_FOUND, alignment_report
from ..dynode_core.faces.tracking import PICKS, Pick
from ..dynode_core.layout import pictures_to_bytes
from ..dynode_core.model_files import find_landmarker, find_points
from ..dynode_core.spread import spread
from ..dynode_core.types import AlignedClip, VideoClip
from . import model_folders, sockets
from .clips import clip_of
from .devices import outside_inference_mode
from .pictures import frames_wanted, gather_faces, picture_frames_input, sheet
from .progress import NodeProgress

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
            inputs=[*_inputs(), *_later_inputs(), *_sockets()],
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
                io.String.Output(
                    id="report",
                    display_name="report",
                    tooltip="In words: in how many frames the face was found, cuts, and the frames with profile views, "
                    "blur or a tilted head. Connect Preview as Text to read it.",
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
        framing: str = FRAMINGS[0],
        search: str = "when needed",
        face_point: str = "",
        custom_quad: str = "",
        least_found: float = LEAST_FOUND,
        edit_profiles: bool = False,
        face_mask: torch.Tensor | None = None,
        face_box: Any = None,
        face_landmarks: Any = None,
    ) -> io.NodeOutput:
        clip, progress = clip_of(frames, fps), NodeProgress()
        wanted = frames_wanted(picture_frames, clip.num_frames, int(crop_size), int(crop_size))
        settings = AlignSettings(
            framing=framing,
            crop_size=int(crop_size),
            scale=crop_scale,
            smoothing=smoothing,
            pick=cast(Pick, which_face),
            face_index=face_index,
            search=cast(Search, search),
            quad=quad_from_text(custom_quad),
            least_found=least_found,
            edit_profiles=edit_profiles,
        )
        hint = _hint(clip, face_point, face_mask, face_box)
        known = None
        if face_landmarks is not None and settings.needs_face:
            known = detections_from_core(face_landmarks, clip, progress=progress)
        points = find_points(model_folders.folders(model_folders.FACE_DETECTORS))
        aligned = align_as_asked(
            clip, settings, _landmarker, detections=known, hint=hint, points_path=points, progress=progress
        )
        report = alignment_report(aligned)
        first = aligned.track.first_shown if wanted == 1 else 0
        crops = gather_faces(
            lambda start, stop: crop_clip(aligned, range(first + start, first + stop)), wanted, CROP_CHUNK
        )
        return io.NodeOutput(aligned, crops, alignment_sheet(aligned), report)


def _landmarker() -> FaceLandmarker:
    return FaceLandmarker(find_landmarker(model_folders.folders(model_folders.LANDMARKERS)))


def _hint(clip: VideoClip, point: str, mask: torch.Tensor | None, box: Any) -> np.ndarray | None:
    """The boxes near which the face is, from the one input that points at it."""
    place = point_from_text(point)
    given = {"face_point": place, "face_mask": mask, "face_box": box}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} each point at a face. Leave only one of them.")
    if mask is not None:
        return hint_from_mask(mask, clip.num_frames, clip.height, clip.width)
    if box is not None:
        return hint_from_core_boxes(box, clip.num_frames)
    return None if place is None else hint_from_point(*place, clip.height, clip.width)


def alignment_sheet(aligned: AlignedClip) -> torch.Tensor:
    """A few frames of the clip with quad and landmarks drawn: `(1, H, W, 3)` in [0, 1]."""
    track, tiles = aligned.track, []
    for index in spread(aligned.clip.num_frames, PREVIEW_FRAMES).tolist():
        frame = pictures_to_bytes(aligned.clip.read([index]))[0]
        seen, shown = bool(track.detected[index]), bool(track.in_view[index])
        if seen or shown:
            quad, landmarks = aligned.quads[index], track.landmarks[index]
            frame = draw_alignment(frame, quad, landmarks, detected=seen, left_alone=not shown)
        tiles.append(frame)
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
            step=0.001,
            tooltip="Frames per second of an IMAGE batch. A VIDEO brings its own and this is not used.",
        ),
        io.Combo.Input(
            "which_face",
            options=list(PICKS),
            default=PICKS[0],
            tooltip="Which face to follow if there are several. It is chosen once in each shot and then followed.",
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
            "calmer but rounds off fast movement.",
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


def _later_inputs() -> list[io.Input]:
    """Widgets that came after the first workflows were saved: such files list values by place, so they stand last,
    and a queued prompt names only those that it knows, so they may be missing."""
    return [
        io.Combo.Input(
            "framing",
            options=list(FRAMINGS),
            default=FRAMINGS[0],
            tooltip="face: as FFHQ frames it. face wide: 1.2 times wider. centre crop: the largest square in the "
            "middle, for scenes, birds, objects. custom quad: the corners below, or a square around face_box or "
            "face_mask.",
            optional=True,
            advanced=True,
        ),
        io.Combo.Input(
            "search",
            options=list(SEARCHES),
            default="when needed",
            tooltip="Look closer for small, dark and turned faces. when needed: in frames in which one look finds "
            "no face, and everywhere if a point, mask or box points at one; costs nothing else. always: also beside "
            "faces that are found. off: never.",
            optional=True,
            advanced=True,
        ),
        io.String.Input(
            "face_point",
            default="",
            tooltip="Follow the face at this point: x, y in pixels of the frame, such as 320, 180, or what a point "
            "editor node writes. Empty: which_face decides.",
            optional=True,
            advanced=True,
        ),
        io.String.Input(
            "custom_quad",
            default="",
            tooltip="For framing 'custom quad', in pixels: left, top, right, bottom of a box, or x, y of the corners "
            "top left, bottom left, bottom right, top right.",
            optional=True,
            advanced=True,
        ),
        io.Float.Input(
            "least_found",
            default=LEAST_FOUND,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Stop if the face is found in a smaller share of the frames that should show it, and say in which. "
            "0 takes what there is: the place of the face between them is then guessed.",
            optional=True,
            advanced=True,
        ),
        io.Boolean.Input(
            "edit_profiles",
            default=False,
            tooltip="Frames in full profile are found and followed, but stay as they are, as face generators know no "
            "profiles; the edit fades out before them and in after them. On: they are inverted and edited like others.",
            optional=True,
            advanced=True,
        ),
    ]


def _sockets() -> list[io.Input]:
    return [
        io.Mask.Input(
            "face_mask",
            optional=True,
            tooltip="Painted over the face to follow. One mask, or one per frame.",
        ),
        io.BoundingBox.Input(
            "face_box",
            optional=True,
            force_input=True,
            socketless=False,
            tooltip="Around the face to follow, in pixels of the frame. One box, or one per frame.",
        ),
        sockets.FaceLandmarks.Input(
            "face_landmarks",
            optional=True,
            tooltip="From ComfyUI's MediaPipe Face Landmarker on the same frames: used instead of looking for faces.",
        ),
    ]


NODES = [FrameAlign]
