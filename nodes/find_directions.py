"""Directions that are found in the generator or from scores, and kept as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..dynode_core.editing.direction_files import save_directions
from ..dynode_core.editing.discovery import FEWEST_SCORES, direction_from_scores, principal_directions, sefa
from ..dynode_core.types import EditDirection, EditedLatent
from . import model_folders, sockets
from .devices import LoadedGenerator, outside_inference_mode
from .edit import picked
from .layers import check_layers, layers_input

SEFA, PCA = "SeFa (weights)", "GANSpace (PCA of codes)"
WEAK_CORRELATION = 0.3


class FindDirections(io.ComfyNode):
    """Directions of a generator that nobody has to name first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_FindDirections",
            display_name="Find Directions",
            category=sockets.CATEGORY,
            description="Finds directions in the generator itself, without any labels: SeFa from its weights, or "
            "GANSpace from how its codes vary. Works for faces and for anything else. Preview Directions shows what "
            "each one does; Edit First Latent applies one.",
            search_aliases=["sefa", "ganspace", "pca", "unsupervised directions", "closed form", "dynode"],
            inputs=[
                sockets.Generator.Input("generator", tooltip="From Load StyleGAN2."),
                io.Combo.Input(
                    "method",
                    options=[SEFA, PCA],
                    default=SEFA,
                    tooltip="SeFa: what the chosen layers answer to most. GANSpace: what varies most among the "
                    "generator's own pictures.",
                ),
                io.Int.Input("count", default=8, min=1, max=64, tooltip="How many, the strongest first."),
                layers_input("Rows of the code that the directions act on, and for SeFa are found in", advanced=False),
            ],
            outputs=[_directions_output()],
        )

    @classmethod
    def validate_inputs(cls, layers: str | None = None) -> bool | str:
        return True if layers is None else check_layers(layers)

    @classmethod
    @outside_inference_mode
    def execute(cls, generator: LoadedGenerator, method: str, count: int, layers: str) -> io.NodeOutput:
        find = sefa if method == SEFA else principal_directions
        return io.NodeOutput(tuple(find(generator.ready(), count, layers)))


class DirectionFromScores(io.ComfyNode):
    """Any attribute that something can measure on pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_DirectionFromScores",
            display_name="Direction From Scores",
            category=sockets.CATEGORY,
            description="Learns a direction from scores of sampled pictures: connect latents of Sample Latents, let "
            "any nodes score its images (a classifier, CLIP, brightness, your own eye), and give one number for each. "
            f"{FEWEST_SCORES} pictures are the least, 64 or more are better.",
            search_aliases=["learn direction", "interfacegan", "attribute", "classifier", "age", "gender", "dynode"],
            inputs=[
                sockets.Latent.Input("latents", tooltip="All latents of Sample Latents."),
                io.Float.Input(
                    "scores",
                    optional=True,
                    force_input=True,
                    tooltip="One number for each picture, as a list; higher means more of it.",
                ),
                io.String.Input(
                    "scores_text",
                    default="",
                    multiline=True,
                    tooltip="Instead of scores: the numbers themselves, with commas or spaces between them.",
                ),
                io.String.Input("name", default="my direction", tooltip="What the direction is called."),
                layers_input("Rows of the code that the direction acts on", advanced=False),
            ],
            outputs=[
                _directions_output(),
                io.String.Output(
                    id="report", display_name="report", tooltip="How well the scores can be told from the codes."
                ),
            ],
            is_input_list=True,
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        latents: list[EditedLatent],
        scores_text: list[str],
        name: list[str],
        layers: list[str],
        scores: list[Any] | None = None,
    ) -> io.NodeOutput:
        values = flat_numbers(scores or []) or read_numbers(scores_text[0])
        found = direction_from_scores(latents, values, name[0].strip() or "direction", layers[0])
        report = (
            f"{found.direction.name}: {found.count} scores; the scores of left-out pictures correlate by "
            f"{found.correlation:.2f} with what the others predict (1 is perfect, 0 is chance)"
        )
        if found.correlation < WEAK_CORRELATION:
            report = f"WARNING: {report}. This direction can't be trusted: use more pictures or clearer scores."
        return io.NodeOutput((found.direction,), report, ui=ui.PreviewText(report))


class SaveDirections(io.ComfyNode):
    """Keep found directions as a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_SaveDirections",
            display_name="Save Directions",
            category=sockets.CATEGORY,
            description="Writes directions to a safetensors file in models/latent_directions, where Edit First Latent "
            "lists them after the page is reloaded.",
            search_aliases=["export direction", "keep direction", "dynode"],
            inputs=[
                sockets.Directions.Input("directions", tooltip="From Find Directions or Direction From Scores."),
                io.Int.Input(
                    "which",
                    default=-1,
                    min=-1,
                    max=511,
                    tooltip="Which of them to keep, counted from 0. -1 keeps all in one file.",
                ),
                io.String.Input(
                    "filename", default="found", tooltip="Name of the file. A number is added if it is taken."
                ),
            ],
            outputs=[io.String.Output(id="path", display_name="path", tooltip="The file that was written.")],
            is_output_node=True,
        )

    @classmethod
    @outside_inference_mode
    def execute(cls, directions: Sequence[EditDirection], which: int, filename: str) -> io.NodeOutput:
        kept = directions if which < 0 else [picked(directions, which)]
        folder = model_folders.folders(model_folders.DIRECTIONS)[0]
        path = free_path(folder, filename)
        save_directions(kept, path)
        return io.NodeOutput(str(path), ui=ui.PreviewText(path.name))


def free_path(folder: Path, filename: str) -> Path:
    """A path in `folder` that no file has, from a name that a user typed."""
    stem = re.sub(r"[^\w\- .()]+", "_", Path(filename.strip()).name.removesuffix(".safetensors")).strip(" .")
    stem = stem or "directions"
    path, number = folder / f"{stem}.safetensors", 2
    while path.exists():
        path, number = folder / f"{stem} {number}.safetensors", number + 1
    return path


def read_numbers(text: str) -> list[float]:
    """Numbers with commas, spaces or line ends between them.

    Raises:
        ValueError: something between them is no number.
    """
    parts = [part for part in re.split(r"[,;\s]+", text) if part]
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"The scores should be numbers with commas between them ({error}).") from None


def flat_numbers(values: Any) -> list[float]:
    """Numbers out of a FLOAT link: single ones, lists, lists of lists or tensors."""
    if isinstance(values, torch.Tensor):
        return [float(value) for value in values.flatten()]
    if isinstance(values, (list, tuple)):
        return [number for value in values for number in flat_numbers(value)]
    return [] if values is None else [float(values)]


def _directions_output() -> io.Output:
    return sockets.Directions.Output(
        id="directions",
        display_name="directions",
        tooltip="For Preview Directions, Edit First Latent and Save Directions.",
    )


NODES = [FindDirections, DirectionFromScores, SaveDirections]
