"""Compare Trajectory: frames are held out, and the trajectory predicts them beside morphing and frame-by-frame work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management
from comfy_api.latest import io, ui

from ..dynode_core.artifacts import plain_facts
from ..dynode_core.comparison import (
    CompareSettings,
    HoldOut,
    PictureSources,
    check_within,
    compare_paths,
    draw_comparison,
    picture_sources,
    report_text,
)
from ..dynode_core.layout import bytes_to_pictures
from ..dynode_core.ode import TrajectorySettings, fit_trajectory
from ..dynode_core.types import AlignedClip, EditedLatent, InvertedClip, LatentTrajectory
from . import sockets
from .devices import LoadedGenerator, outside_inference_mode
from .progress import NodeProgress
from .trajectory import CLOSED_FORM, fit_input, train


class CompareTrajectory(io.ComfyNode):
    """Hold out keyframes and predict them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_CompareTrajectory",
            display_name="Compare Trajectory",
            category=sockets.CATEGORY,
            description="Leaves keyframes out, predicts them with the trajectory, with linear and spline morphing of "
            "the neighbouring codes, and shows the errors beside frame-by-frame work: in the latent space and, with a "
            "generator, as pictures. For your own clip, what the paper shows in its Figure 4 and Table 1.",
            search_aliases=[
                "benchmark",
                "held out",
                "evaluate",
                "mse ssim",
                "morphing",
                "interpolation error",
                "dynode",
            ],
            inputs=_compare_inputs(),
            outputs=[
                io.Image.Output(
                    id="picture",
                    display_name="picture",
                    tooltip="The paths in the plane of the motion, the errors, and held-out faces by every method.",
                ),
                io.String.Output(id="report", display_name="report", tooltip="The errors as a table of text."),
                io.String.Output(id="json", display_name="json", tooltip="Every number, as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        codes: InvertedClip,
        keep_every: int,
        irregular: bool,
        seed: int,
        pictures: int,
        picture_size: str,
        fit: Mapping[str, Any],
        latent: EditedLatent | None = None,
        generator: LoadedGenerator | None = None,
        aligned: AlignedClip | None = None,
    ) -> io.NodeOutput:
        progress = NodeProgress()
        progress(0, 1)
        sources = _sources(codes, generator, aligned, int(picture_size))
        found = compare_paths(
            codes,
            _fitter(fit, seed, generator),
            CompareSettings(HoldOut(keep_every, irregular, seed), pictures),
            latent=latent,
            render=None if sources is None else sources.render,
            actual=None if sources is None else sources.actual,
            progress=NodeProgress(),
        )
        picture = bytes_to_pictures(draw_comparison(found))[None]
        facts = json.dumps(plain_facts(found.facts()), indent=2)
        return io.NodeOutput(picture, report_text(found), facts, ui=ui.PreviewImage(picture, cls=cls))


def _fitter(
    fit: Mapping[str, Any], seed: int, generator: LoadedGenerator | None
) -> Callable[[InvertedClip], LatentTrajectory]:
    """How the kept keyframes are fitted: as Fit Trajectory ODE does."""
    if fit["fit"] != CLOSED_FORM:
        return lambda part: train(part, fit, seed, generator)
    device = str(comfy.model_management.get_torch_device())
    settings = TrajectorySettings(check_held_out=False, seed=seed, device=device)
    return lambda part: fit_trajectory(part, settings, progress=NodeProgress())


def _sources(
    codes: InvertedClip, generator: LoadedGenerator | None, aligned: AlignedClip | None, size: int
) -> PictureSources | None:
    """Where the pictures come from; none without a generator. What does not belong together is refused here."""
    if generator is not None:
        return picture_sources(codes, generator.resting, size, aligned, ready=generator.ready)
    if aligned is not None:
        check_within(codes, aligned)
    return None


def _compare_inputs() -> list[io.Input]:
    return [
        sockets.Codes.Input(
            "codes",
            tooltip="Codes of the keyframes, from StyleGAN2 Invert: at least 5. More keyframes, a better test.",
        ),
        io.Int.Input(
            "keep_every",
            default=2,
            min=2,
            max=64,
            tooltip="One keyframe in so many is kept, the others are predicted. The first and last are always kept.",
        ),
        io.Boolean.Input(
            "irregular",
            default=False,
            tooltip="Keep as many keyframes, but chosen at random, so that gaps are uneven.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip="Of the random choice of keyframes and of the fit. Same seed, same result.",
            advanced=True,
        ),
        io.Int.Input(
            "pictures",
            default=8,
            min=1,
            max=1000,
            tooltip="With a generator: how many kept and how many held-out frames are rendered and compared, at most.",
        ),
        io.Combo.Input(
            "picture_size", options=["128", "256", "512"], default="256", tooltip="Side of those pictures in pixels."
        ),
        fit_input(optional=False),
        sockets.Latent.Input(
            "latent",
            optional=True,
            tooltip="From Edit First Latent. Then the edited clip is compared with editing every frame.",
        ),
        sockets.Generator.Input(
            "generator", optional=True, tooltip="The generator of the codes: then pictures are compared, too."
        ),
        sockets.Aligned.Input(
            "aligned",
            optional=True,
            tooltip="FrameAlign's clip: pictures are then compared with its own frames. Not used with an edit.",
        ),
    ]


NODES = [CompareTrajectory]
