"""StyleGAN2 Render: codes to face pictures, when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dynode_core.checks import check_family
from ..dynode_core.editing import latent_for, sample_of
from ..dynode_core.generators import Generator
from ..dynode_core.generators.batching import batch_that_fits
from ..dynode_core.generators.tuning import with_tuning
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.memory import reuse_large_blocks
from ..dynode_core.rendering import render
from ..dynode_core.tuned_weights import stretches
from ..dynode_core.types import EditedLatent, TrajectorySample
from . import sockets
from .devices import LoadedGenerator, outside_inference_mode
from .pictures import frames_wanted, gather_faces, picture_frames_input
from .progress import NodeProgress

FULL_SIZE = "full"
SIZES = (FULL_SIZE, "1024", "512", "256", "128", "64")


@dataclass(frozen=True)
class ManagedFaces:
    """Rendered faces that come onto the device when they are read and retreat when it runs out of memory."""

    loaded: LoadedGenerator
    sample: TrajectorySample
    size: int
    chunk: int
    """Faces per pass; 0: as many as the free memory takes."""

    @property
    def num_frames(self) -> int:
        return len(self.sample.times)

    @property
    def times(self) -> np.ndarray:
        return self.sample.times

    @property
    def fps(self) -> Fraction:
        return self.sample.fps

    def read(self, start: int, stop: int) -> Tensor:
        """`(stop - start, 3, S, S)` in [-1, 1], CPU: the edited faces."""
        return self._read(self.sample.w_plus[start:stop], start)

    def read_base(self, start: int, stop: int) -> Tensor | None:
        """The same frames before the edit."""
        return self._read(self.sample.base_w_plus[start:stop], start)

    def _read(self, w_plus: Tensor, start: int) -> Tensor:
        times, generator = self.sample.times[start : start + len(w_plus)], self.loaded.ready()
        pieces: list[Tensor] = []
        for part, tuning in stretches(self.sample.tuning, times):
            pieces += self._draw(with_tuning(generator, tuning), w_plus[part])
        return torch.cat(pieces)

    def _draw(self, model: Generator, w_plus: Tensor) -> list[Tensor]:
        chunk = self.chunk or batch_that_fits(model)
        pieces: list[Tensor] = []
        done = 0
        while done < len(w_plus):
            try:
                pieces.append(render(model, w_plus[done : done + chunk], size=self.size, batch=chunk))
                done += len(pieces[-1])
            except Exception as reason:
                if chunk == 1 or not comfy.model_management.is_oom(reason):
                    raise
                chunk = max(1, chunk // 2)
                comfy.model_management.soft_empty_cache()
        return pieces


class Render(io.ComfyNode):
    """Make the faces of a sample."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_Render",
            display_name="StyleGAN2 Render",
            category=sockets.CATEGORY,
            description="Makes the picture of every code. The faces output renders while Blend Back reads it, so the "
            "length of the clip costs no memory.",
            search_aliases=["stylegan render", "synthesis", "generate face", "gan decode", "dynode"],
            inputs=[
                io.MultiType.Input(
                    "sample",
                    types=[sockets.Sample, sockets.Latent],
                    tooltip="Codes over time, from Solve At Times or Mix Latents, or a single code.",
                ),
                sockets.Generator.Input("generator", tooltip="The generator that the clip was inverted with."),
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default=FULL_SIZE,
                    tooltip="Side of the faces in pixels. A face smaller than this in the video gains nothing from "
                    "more.",
                ),
                io.Int.Input(
                    "chunk",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Faces made at once. 0: as many as the free memory of the GPU takes, one on a CPU. Halved "
                    "when the device runs out of memory.",
                    advanced=True,
                ),
                picture_frames_input("images"),
            ],
            outputs=[
                sockets.Faces.Output(id="faces", display_name="faces", tooltip="For Blend Back."),
                io.Image.Output(
                    id="images",
                    display_name="images",
                    tooltip="The faces as pictures: the first one, or all; see picture_frames.",
                ),
            ],
        )

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def execute(
        cls,
        sample: TrajectorySample | EditedLatent,
        generator: LoadedGenerator,
        size: str,
        chunk: int,
        picture_frames: str,
    ) -> io.NodeOutput:
        model = generator.resting
        if isinstance(sample, EditedLatent):
            sample = sample_of([latent_for(sample, model.family, torch.Size((model.num_ws, model.w_dim)))])
        check_family("The sample", sample.family, generator.family)
        side = _side_of(size, model.resolution)
        faces, progress = ManagedFaces(generator, sample, side, chunk), NodeProgress()
        wanted = frames_wanted(picture_frames, faces.num_frames, side, side)

        def read(start: int, stop: int) -> Tensor:
            progress(start, wanted)
            piece = faces.read(start, stop)
            progress(stop, wanted, network_to_bytes(piece[-1:])[0])
            return piece

        with reuse_large_blocks():
            pictures = gather_faces(read, wanted, chunk or batch_that_fits(generator.ready()))
        return io.NodeOutput(faces, pictures)


def _side_of(size: str, resolution: int) -> int:
    side = resolution if size == FULL_SIZE else int(size)
    if side > resolution:
        raise ValueError(f"size is {side}, but this generator makes {resolution} pixels. Choose '{FULL_SIZE}' or less.")
    return side


NODES = [Render]
