"""Stitch Tuning: the generator learns to meet the clip around the face."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynode_core.blending import BlendSettings, StitchResult, StitchSettings, tune_stitching
from ..dynode_core.blending.settings import WHOLE_CROP
from ..dynode_core.blending.stitch_scene import make_scene
from ..dynode_core.faces.masks import REGIONS
from ..dynode_core.generators import Generator
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.rendering import render
from ..dynode_core.spread import spread
from ..dynode_core.types import AlignedClip, TrajectorySample
from . import sockets
from .devices import LoadedGenerator, outside_inference_mode
from .pictures import sheet
from .progress import NodeProgress

DEFAULTS = StitchSettings()
REGION = BlendSettings()
SHEET_FRAMES = 4
SHEET_TILE_PX = 256


class StitchTuning(io.ComfyNode):
    """Tune the weights of a sample to the surroundings of the face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_StitchTuning",
            display_name="Stitch Tuning",
            category=sockets.CATEGORY,
            description="Optional, between Solve At Times and StyleGAN2 Render: tunes the generator until the made "
            "face meets the clip in a band around the region that Blend Back shows. For edits that reach the edge of "
            "the region, such as age or hair.",
            search_aliases=["stitching tuning", "stit", "seam", "border", "pivotal tuning", "fine-tune", "dynode"],
            inputs=_inputs(),
            outputs=[
                sockets.Sample.Output(
                    id="sample",
                    display_name="sample",
                    tooltip="The same codes with tuned weights, for StyleGAN2 Render.",
                ),
                io.Image.Output(
                    id="comparison",
                    display_name="comparison",
                    tooltip="Rows: the clip, the faces before, the faces after.",
                ),
                io.String.Output(
                    id="report",
                    display_name="report",
                    tooltip="Error around the face before and after, rounds, expected and needed seconds.",
                ),
            ],
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        sample: TrajectorySample,
        aligned: AlignedClip,
        generator: LoadedGenerator,
        frames: int,
        rounds: int,
        region: str,
        dilate: float,
        feather: float,
        keep_face: float,
        target: float,
        per_shot: bool = DEFAULTS.per_shot,
    ) -> io.NodeOutput:
        settings = StitchSettings(
            frames=frames,
            rounds=rounds,
            content_weight=keep_face,
            target=target,
            region=BlendSettings(region=region, dilate=dilate, feather=feather),
            per_shot=per_shot,
        )
        model = generator.ready()
        result = tune_stitching(sample, aligned, model, settings, progress=NodeProgress())
        picture = comparison_sheet(sample, result, aligned, model, settings)
        return io.NodeOutput(result.sample, picture, result.report, ui=ui.PreviewImage(picture, cls=cls))


def comparison_sheet(
    sample: TrajectorySample, result: StitchResult, aligned: AlignedClip, generator: Generator, settings: StitchSettings
) -> Tensor:
    """The clip, the edited faces before and after, for a few of the frames: `(1, H, W, 3)` in [0, 1]."""
    size = min(SHEET_TILE_PX, generator.resolution)
    chosen = [result.outputs[i] for i in spread(len(result.outputs), SHEET_FRAMES)]
    rows = [make_scene(sample, aligned, i, size, settings.region, generator.device).source[0] for i in chosen]
    for tuning in (sample.tuning, result.sample.tuning):
        w_plus, times = sample.w_plus[torch.tensor(chosen)], sample.times[chosen]
        rows += list(render(generator, w_plus, tuning=tuning, times=times, size=size))
    return sheet([network_to_bytes(face.cpu()[None])[0] for face in rows], columns=len(chosen))


def _inputs() -> list[io.Input]:
    return [
        sockets.Sample.Input("sample", tooltip="From Solve At Times."),
        sockets.Aligned.Input("aligned", tooltip="From FrameAlign: the clip that the sample belongs to."),
        sockets.Generator.Input("generator", tooltip="The generator that the clip was inverted with."),
        io.Int.Input(
            "frames",
            default=DEFAULTS.frames,
            min=1,
            max=512,
            tooltip="Frames to tune on, spread over the clip. The time grows with frames times rounds.",
        ),
        io.Int.Input(
            "rounds",
            default=DEFAULTS.rounds,
            min=1,
            max=1000,
            tooltip="Visits to each of them, at most. It ends earlier at the target, or when a round hardly helps.",
        ),
        io.Combo.Input(
            "region",
            options=[*REGIONS, WHOLE_CROP],
            default=REGION.region,
            tooltip="As in Blend Back: the band lies around it.",
        ),
        io.Float.Input(
            "dilate", default=REGION.dilate, min=-0.5, max=0.5, step=0.01, tooltip="As in Blend Back.", advanced=True
        ),
        io.Float.Input(
            "feather", default=REGION.feather, min=0.0, max=0.5, step=0.01, tooltip="As in Blend Back.", advanced=True
        ),
        io.Float.Input(
            "keep_face",
            default=DEFAULTS.content_weight,
            min=0.0,
            max=1000.0,
            step=0.01,
            tooltip="How much it counts that the face inside the band stays as it is. More protects the edit, "
            "which tuning weakens.",
            advanced=True,
        ),
        io.Float.Input(
            "target",
            default=DEFAULTS.target,
            min=0.0,
            max=100.0,
            step=0.0001,
            tooltip="Tuning ends once the error in the band is this small. 0 takes all rounds that help.",
            advanced=True,
        ),
        io.Boolean.Input(
            "per_shot",
            default=DEFAULTS.per_shot,
            optional=True,
            tooltip="On: each shot of the clip gets weights of its own, tuned on its own frames, at least one.",
            advanced=True,
        ),
    ]


NODES = [StitchTuning]
