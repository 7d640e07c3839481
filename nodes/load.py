"""Load StyleGAN2: the image generator in whose latent space everything happens."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dynode_core.checkpoints.load import load_generator
from ..dynode_core.generators.protocol import Compilable
from . import model_folders, sockets
from .devices import hold_generator, outside_inference_mode
from .saved_files import stamp

DEFAULT = "default (MobileStyleGAN FFHQ-1024)"


class LoadGenerator(io.ComfyNode):
    """Choose a generator and hand it to ComfyUI's model manager."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_LoadGenerator",
            display_name="Load StyleGAN2",
            category=sockets.CATEGORY,
            description="Loads the face generator. The default one (MobileStyleGAN, distilled from StyleGAN2 FFHQ at "
            "1024 pixels) also runs on a CPU; other files are read from models/stylegan2.",
            search_aliases=["stylegan", "gan", "ffhq", "mobilestylegan", "generator", "load gan", "dynode"],
            inputs=[
                io.Combo.Input(
                    "generator_name",
                    options=[DEFAULT, *model_folders.files(model_folders.GENERATORS)],
                    default=DEFAULT,
                    tooltip="The default generator comes with the packages of requirements-models.txt. Other entries "
                    "are the files in models/stylegan2.",
                ),
                io.Boolean.Input(
                    "torch_compile",
                    default=False,
                    tooltip="Make pictures faster with torch.compile, after some minutes for the first ones. Where it "
                    "does not work, all goes on without it and the log says so.",
                    optional=True,
                    advanced=True,
                ),
            ],
            outputs=[
                sockets.Generator.Output(
                    id="generator",
                    display_name="generator",
                    tooltip="Use the same one for inverting, editing and rendering.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, generator_name: str | None, torch_compile: bool | None = False) -> Any:
        """ComfyUI gives None for what comes through a link: then what is linked tells whether it changed."""
        return stamp(model_folders.GENERATORS, generator_name)

    @classmethod
    @outside_inference_mode
    def execute(cls, generator_name: str, torch_compile: bool = False) -> io.NodeOutput:
        if generator_name == DEFAULT:
            generator = load_generator(
                folders=model_folders.folders(model_folders.GENERATORS), cache_dir=model_folders.cache_dir("generators")
            )
        else:  # the converted copy is kept beside the file: models folders that are shared convert it once
            generator = load_generator(model_folders.full_path(model_folders.GENERATORS, generator_name))
        if torch_compile and isinstance(generator, Compilable):
            generator.compile_synthesis()
        return io.NodeOutput(hold_generator(generator))


NODES = [LoadGenerator]
