"""Inversion Report: how good the codes are, frame by frame."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from comfy_api.latest import io, ui

from ..dynode_core.editing.directions import shipped_directions
from ..dynode_core.faces.landmarks import FaceLandmarker
from ..dynode_core.layout import bytes_to_pictures
from ..dynode_core.metrics.editability import DEFAULT_PROBE, PROBES, STRENGTH
from ..dynode_core.metrics.frame_quality import Instruments
from ..dynode_core.metrics.identity import PIXELS, IdentityEmbedder
from ..dynode_core.metrics.inversion_report import ReportSettings, report_inversion
from ..dynode_core.metrics.report_drawing import draw_report
from ..dynode_core.metrics.report_text import report_facts, report_text
from ..dynode_core.model_files import find_landmarker
from ..dynode_core.types import AlignedClip, InvertedClip, LatentTrajectory
from . import model_folders, sockets
from .devices import LoadedGenerator, outside_inference_mode
from .judges import best_perceptual_on
from .progress import NodeProgress

NONE = "none"
DEFAULTS = ReportSettings()


class InversionReport(io.ComfyNode):
    """Compare reconstructions with the clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_InversionReport",
            display_name="Inversion Report",
            category=sockets.CATEGORY,
            description="Measures how good codes are: pixels, perception, likeness, expressions, pose, how far they "
            "lie from the mean face, and how well they can be edited. With a trajectory also at frames between the "
            "keyframes.",
            search_aliases=["quality", "metrics", "evaluate inversion", "mse ssim lpips", "identity", "dynode"],
            inputs=_inputs(),
            outputs=[
                io.Image.Output(
                    id="picture",
                    display_name="picture",
                    tooltip="Clip, reconstruction and a probe edit of some keyframes, and charts over time.",
                ),
                io.String.Output(id="report", display_name="report", tooltip="Means and a line per frame, as text."),
                io.String.Output(id="json", display_name="json", tooltip="Every number, as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        codes: InvertedClip,
        aligned: AlignedClip,
        generator: LoadedGenerator,
        embedder: str,
        probe: str,
        strength: float,
        picture_size: str,
        keyframes: int,
        frames_between: int,
        embedder_pixels: str,
        trajectory: LatentTrajectory | None = None,
    ) -> io.NodeOutput:
        settings = ReportSettings(int(picture_size), keyframes, frames_between, strength)
        model, progress = generator.ready(), NodeProgress()
        progress(0, 1)
        with _instruments(model.device, embedder, embedder_pixels) as instruments:
            found = report_inversion(
                aligned,
                codes,
                model,
                instruments,
                settings,
                probe=None if probe == NONE else shipped_directions()[probe],
                trajectory=trajectory,
                progress=progress,
            )
        picture = bytes_to_pictures(draw_report(found))[None]
        facts = json.dumps(report_facts(found), indent=2)
        return io.NodeOutput(picture, report_text(found), facts, ui=ui.PreviewImage(picture, cls=cls))


@contextlib.contextmanager
def _instruments(device: torch.device, embedder: str, pixels: str) -> Iterator[Instruments]:
    """What is installed; the landmarker is closed again at the end."""
    path: Path | None = None if embedder == NONE else model_folders.full_path(model_folders.IDENTITY, embedder)
    identity = None if path is None else IdentityEmbedder(path, pixels=pixels)
    task = find_landmarker(model_folders.folders(model_folders.LANDMARKERS))
    with FaceLandmarker(task, max_faces=1) as landmarker:
        yield Instruments(best_perceptual_on(device), identity, landmarker)


def _inputs() -> list[io.Input]:
    embedders = model_folders.files(model_folders.IDENTITY)
    return [
        sockets.Codes.Input("codes", tooltip="From StyleGAN2 Invert, Pivotal Tuning or Load Codes."),
        sockets.Aligned.Input("aligned", tooltip="The clip that they were found for, from FrameAlign."),
        sockets.Generator.Input("generator", tooltip="The generator of the codes."),
        io.Combo.Input(
            "embedder",
            options=[NONE, *embedders],
            default=embedders[0] if len(embedders) == 1 else NONE,
            tooltip="A face embedder (ONNX, 112 px) in models/face_recognition. Take another one than SFace, which the "
            "inversion itself optimises.",
        ),
        io.Combo.Input(
            "probe",
            options=[NONE, *PROBES],
            default=DEFAULT_PROBE,
            tooltip="The edit with which editability is measured.",
        ),
        io.Float.Input(
            "strength",
            default=STRENGTH,
            min=0.1,
            max=20.0,
            step=0.1,
            tooltip="Of the probe edit.",
            advanced=True,
        ),
        io.Combo.Input(
            "picture_size",
            options=["256", "512"],
            default="256",
            tooltip="Side in pixels of the pictures that are compared.",
            advanced=True,
        ),
        io.Int.Input(
            "keyframes",
            default=DEFAULTS.keyframes,
            min=0,
            max=10_000,
            tooltip="At most this many keyframes, evenly spread. 0 takes all.",
            advanced=True,
        ),
        io.Int.Input(
            "frames_between",
            default=DEFAULTS.between,
            min=0,
            max=10_000,
            tooltip="With a trajectory: at most this many frames between the keyframes.",
        ),
        io.Combo.Input(
            "embedder_pixels",
            options=list(PIXELS),
            default=next(iter(PIXELS)),
            tooltip="How the embedder wants its pixels: ImageNet's mean and deviation (MobileFaceNet), from -1 to 1 "
            "(InsightFace's networks), or 0 to 255 (SFace).",
            advanced=True,
        ),
        sockets.Trajectory.Input(
            "trajectory",
            optional=True,
            tooltip="From Fit Trajectory ODE: then frames between the keyframes are measured, too.",
        ),
    ]


NODES = [InversionReport]
