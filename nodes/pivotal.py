"""Pivotal Tuning: the generator comes to the codes."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynode_core.editing.directions import shipped_directions
from ..dynode_core.editing.latent import apply_direction, check_direction_fits, first_latent
from ..dynode_core.faces.crop import crop_clip
from ..dynode_core.generators import Generator
from ..dynode_core.inversion.pivotal import PivotalResult, PivotalSettings, tune_to_pivots, tuned_generator
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.metrics.editability import DEFAULT_PROBE, STRENGTH
from ..dynode_core.rendering import render
from ..dynode_core.spread import spread
from ..dynode_core.types import AlignedClip, InvertedClip
from . import model_folders, sockets
from .devices import LoadedGenerator, hold_generator, outside_inference_mode
from .judges import best_perceptual_on, identity_on
from .pictures import sheet
from .progress import NodeProgress

DEFAULTS = PivotalSettings()
DEPTHS = ("32", "64", "128", "256", "1024")
SHEET_PIVOTS = 4
SHEET_TILE_PX = 256


class PivotalTuning(io.ComfyNode):
    """Tune a generator at fixed codes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_PivotalTuning",
            display_name="Pivotal Tuning",
            category=sockets.CATEGORY,
            description="Optional, after StyleGAN2 Invert or Load Codes: keeps the codes and tunes the generator until "
            "it shows the clip's faces at them (PTI). One set of weights for all frames, or one for each shot; the "
            "loaded generator itself is not changed. An interrupted run goes on where it was.",
            search_aliases=["pti", "pivotal tuning inversion", "stit", "fine-tune generator", "likeness", "dynode"],
            inputs=_inputs(),
            outputs=[
                sockets.Codes.Output(
                    id="codes",
                    display_name="codes",
                    tooltip="The same codes with the tuned weights, for Fit Trajectory ODE. Keep using the untuned "
                    "generator with them.",
                ),
                sockets.Generator.Output(
                    id="tuned",
                    display_name="tuned generator",
                    tooltip="A generator with the tuned weights in place, for Sample Latents and other codes; "
                    "of weights for each shot, those of the first.",
                ),
                io.Image.Output(
                    id="comparison",
                    display_name="comparison",
                    tooltip="Rows: the clip, before, after; a smile before and after, where the shipped one fits.",
                ),
                io.String.Output(
                    id="report",
                    display_name="report",
                    tooltip="Errors before and after, how much other faces changed, which perceptual distance it was.",
                ),
            ],
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        codes: InvertedClip,
        aligned: AlignedClip,
        generator: LoadedGenerator,
        keyframes: int,
        rounds: int,
        target: float,
        locality: float,
        rate: float,
        depth: str,
        likeness: float,
        seed: int,
        per_shot: bool = DEFAULTS.per_shot,
    ) -> io.NodeOutput:
        settings = PivotalSettings(
            keyframes=keyframes,
            rounds=rounds,
            target=target,
            locality_weight=locality,
            rate=rate,
            depth=int(depth),
            identity_weight=likeness,
            per_shot=per_shot,
            seed=seed,
        )
        model = generator.ready()
        result = tune_to_pivots(
            aligned,
            codes,
            model,
            settings,
            perceptual=best_perceptual_on(model.device),
            identity=identity_on(model.device) if likeness else None,
            cache_dir=model_folders.cache_dir("pivotal"),
            progress=NodeProgress(),
        )
        picture = comparison_sheet(aligned, codes, result, model)
        tuned = hold_generator(tuned_generator(model, result.codes.tuning).cpu())
        return io.NodeOutput(result.codes, tuned, picture, result.report, ui=ui.PreviewImage(picture, cls=cls))


def comparison_sheet(aligned: AlignedClip, codes: InvertedClip, result: PivotalResult, generator: Generator) -> Tensor:
    """Clip, before, after, and an edit before and after, for a few pivots: `(1, H, W, 3)` in [0, 1]."""
    size = min(SHEET_TILE_PX, generator.resolution)
    chosen = [result.pivots[i] for i in spread(len(result.pivots), SHEET_PIVOTS)]
    rows = [crop_clip(aligned, [int(codes.frame_indices[k]) for k in chosen], size)]
    w_plus, times = codes.w_plus[chosen], codes.times[chosen]
    for latents in (w_plus, _smiling(codes, w_plus)):
        if latents is not None:
            for tuning in (codes.tuning, result.codes.tuning):
                rows.append(render(generator, latents, tuning=tuning, times=times, size=size))
    return sheet([face for row in rows for face in network_to_bytes(row)], columns=len(chosen))


def _smiling(codes: InvertedClip, w_plus: Tensor) -> Tensor | None:
    """The codes with the shipped smile, or None where it does not fit."""
    direction, first = shipped_directions()[DEFAULT_PROBE], first_latent(codes)
    try:
        check_direction_fits(direction, torch.Size(first.w_plus_0.shape), codes.family)
    except ValueError:
        return None
    edited = apply_direction(first, direction, STRENGTH)
    return w_plus + (edited.w_plus_0 - first.w_plus_0)


def _inputs() -> list[io.Input]:
    return [
        sockets.Codes.Input("codes", tooltip="From StyleGAN2 Invert or Load Codes: they stay as they are."),
        sockets.Aligned.Input("aligned", tooltip="The clip that they were found for, from FrameAlign."),
        sockets.Generator.Input("generator", tooltip="The generator of the codes."),
        io.Int.Input(
            "keyframes",
            default=DEFAULTS.keyframes,
            min=1,
            max=512,
            tooltip="At most this many codes are tuned on, evenly spread. The time grows with keyframes times rounds.",
        ),
        io.Int.Input(
            "rounds",
            default=DEFAULTS.rounds,
            min=1,
            max=1000,
            tooltip="Visits to each of them, at most. Ends at the target, or when three rounds in turn hardly help.",
        ),
        io.Float.Input(
            "target",
            default=DEFAULTS.target,
            min=0.0,
            max=1.0,
            step=0.0001,
            tooltip="Tuning ends once the mean perceptual distance is this small. 0 takes all rounds that help.",
        ),
        io.Float.Input(
            "locality",
            default=DEFAULTS.locality_weight,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="How much it counts that other faces stay what they were. More protects edits.",
            advanced=True,
        ),
        io.Float.Input(
            "rate",
            default=DEFAULTS.rate,
            min=0.0,
            max=1.0,
            step=0.0001,
            tooltip="Learning rate, in parts of the spread of each weight.",
            advanced=True,
        ),
        io.Combo.Input(
            "depth",
            options=list(DEPTHS),
            default=str(DEFAULTS.depth),
            tooltip="Layers up to this size in pixels are tuned. More than 64 can leave a fine pattern on the skin.",
            advanced=True,
        ),
        io.Float.Input(
            "likeness",
            default=DEFAULTS.identity_weight,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip="Weight of the face embedder, where it is installed.",
            advanced=True,
        ),
        io.Int.Input(
            "seed",
            default=DEFAULTS.seed,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip="Of the order of the visits. Same seed, same result.",
            advanced=True,
        ),
        io.Boolean.Input(
            "per_shot",
            default=DEFAULTS.per_shot,
            optional=True,
            tooltip="On: each shot of the clip gets weights of its own, tuned on its own keyframes, at least one. The "
            "keyframes are shared out, so it takes about as long. One set for all shots comes as close at the same "
            "cost; with more keyframes shots that differ much may gain.",
            advanced=True,
        ),
    ]


NODES = [PivotalTuning]
