"""Sample Latents and Mix Latents: codes without a video."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynode_core.editing import (
    first_latent,
    mix_latents,
    morph_latents,
    sample_of,
    sampled_latents,
)
from ..dynode_core.generators.batching import batch_that_fits
from ..dynode_core.generators.sampling import LARGEST_SEED, sample_codes
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.memory import reuse_large_blocks
from ..dynode_core.video import exact_fps
from . import sockets
from .devices import LoadedGenerator, outside_inference_mode
from .layers import check_layers, layers_input
from .pictures import check_pictures_fit, gather_faces
from .progress import NodeProgress
from .render import FULL_SIZE, SIZES, ManagedFaces

MOST_FACES = 64


class SampleLatents(io.ComfyNode):
    """Seeds to codes and their pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_SampleLatents",
            display_name="Sample Latents",
            category=sockets.CATEGORY,
            description="Makes faces (or whatever the generator makes) from seeds: a quick way to try directions "
            "without a video. Connect latents to Edit First Latent, Mix Latents or StyleGAN2 Render; with a count "
            "above 1, these run once for each.",
            search_aliases=["random face", "seed", "truncation", "generate face", "gan sample", "dynode"],
            inputs=_sample_inputs(),
            outputs=[
                sockets.Latent.Output(
                    id="latents",
                    display_name="latents",
                    is_output_list=True,
                    tooltip="One code per seed. Nodes after this one run once for each.",
                ),
                io.Image.Output(id="images", display_name="images", tooltip="All the pictures as a batch."),
            ],
        )

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def execute(
        cls,
        generator: LoadedGenerator,
        seed: int,
        count: int,
        truncation_psi: float,
        size: str,
        truncation_cutoff: int,
        class_index: int,
    ) -> io.NodeOutput:
        model = generator.ready()
        side = model.resolution if size == FULL_SIZE else min(int(size), model.resolution)
        check_pictures_fit(count, side, side, remedy="Use a smaller count or size.")
        codes = sample_codes(
            model,
            [(seed + i) % (LARGEST_SEED + 1) for i in range(count)],
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff or None,
            class_index=class_index,
        )
        latents = sampled_latents(codes, model)
        faces, progress = ManagedFaces(generator, sample_of(latents), side, chunk=0), NodeProgress()

        def read(start: int, stop: int) -> Tensor:
            progress(start, count)
            piece = faces.read(start, stop)
            progress(stop, count, network_to_bytes(piece[-1:])[0])
            return piece

        with reuse_large_blocks():
            pictures = gather_faces(read, count, chunk=batch_that_fits(model))
        return io.NodeOutput(latents, pictures, ui=ui.PreviewImage(pictures, cls=cls))


class MixLatents(io.ComfyNode):
    """One code between two, and the path from one to the other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_MixLatents",
            display_name="Mix Latents",
            category=sockets.CATEGORY,
            description="Mixes two codes: all rows for a face between two, or some rows to take only the pose, the "
            "shape or the colours of the second. The morph runs from the first to the second in equal steps; StyleGAN2 "
            "Render draws both.",
            search_aliases=["morph", "interpolate", "style mixing", "blend latents", "latent walk", "dynode"],
            inputs=_mix_inputs(),
            outputs=[
                sockets.Latent.Output(
                    id="latent",
                    display_name="latent",
                    tooltip="The mix, for Edit First Latent, StyleGAN2 Render, or Solve At Times as an edit of the "
                    "first code.",
                ),
                sockets.Sample.Output(
                    id="morph",
                    display_name="morph",
                    tooltip="The way from the first to the second, for StyleGAN2 Render.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        return True if layers is None else check_layers(layers)

    @classmethod
    @outside_inference_mode
    def execute(
        cls, latent_a: Any, latent_b: Any, weight: float, layers: str, frames: int, fps: float
    ) -> io.NodeOutput:
        a, b = first_latent(latent_a), first_latent(latent_b)
        return io.NodeOutput(mix_latents(a, b, weight, layers), morph_latents(a, b, frames, exact_fps(fps), layers))


def _latent_input(name: str, tooltip: str) -> io.Input:
    return io.MultiType.Input(name, types=[sockets.Latent, sockets.Trajectory, sockets.Codes], tooltip=tooltip)


def _sample_inputs() -> list[io.Input]:
    return [
        sockets.Generator.Input("generator", tooltip="From Load StyleGAN2."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=LARGEST_SEED,
            control_after_generate=True,
            tooltip="The same seed gives the same picture, also in NVIDIA's own scripts.",
        ),
        io.Int.Input(
            "count",
            default=4,
            min=1,
            max=MOST_FACES,
            tooltip="How many: seed, seed + 1, and so on.",
        ),
        io.Float.Input(
            "truncation_psi",
            default=0.7,
            min=-2.0,
            max=2.0,
            step=0.05,
            tooltip="1: as varied as the training pictures. Towards 0: more usual and cleaner, until all are "
            "the mean face.",
        ),
        io.Combo.Input(
            "size",
            options=list(SIZES),
            default="512",
            tooltip="Side of the pictures in pixels, at most what the generator makes.",
        ),
        io.Int.Input(
            "truncation_cutoff",
            default=0,
            min=0,
            max=64,
            tooltip="Truncate only the first so many rows of the codes. 0 truncates all.",
            advanced=True,
        ),
        io.Int.Input(
            "class_index",
            default=0,
            min=0,
            max=10_000,
            tooltip="Which class, for generators that were trained with classes. 0 for all others.",
            advanced=True,
        ),
    ]


def _mix_inputs() -> list[io.Input]:
    return [
        _latent_input(
            "latent_a",
            "The first code; its rows that are not chosen are kept. From Sample Latents or Edit First Latent, or the "
            "first code of a trajectory or an inversion.",
        ),
        _latent_input("latent_b", "The second code, of the same generator or of one that shares its codes."),
        io.Float.Input(
            "weight",
            default=0.5,
            min=-1.0,
            max=2.0,
            step=0.05,
            tooltip="For the latent output: 0 is the first, 1 the second, 0.5 half way. Outside, the "
            "difference is exaggerated.",
        ),
        layers_input("Rows that are mixed", advanced=False),
        io.Int.Input(
            "frames",
            default=24,
            min=2,
            max=10_000,
            tooltip="For the morph output: how many frames, the first and the second code included.",
        ),
        io.Float.Input(
            "fps",
            default=24.0,
            min=1.0,
            max=240.0,
            step=0.001,
            tooltip="For the morph output: frames per second.",
            advanced=True,
        ),
    ]


NODES = [SampleLatents, MixLatents]
