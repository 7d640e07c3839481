"""Save and Load Codes: an inverted clip as a file, and codes that other programs found."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..dynode_core.artifacts import save_artifact
from ..dynode_core.inversion.code_files import describe_codes, load_codes
from ..dynode_core.inversion.foreign_codes import AUTOMATIC, LAYOUTS, FramesOfCodes
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.rendering import render
from ..dynode_core.spread import spread
from ..dynode_core.types import AlignedClip, InvertedClip
from ..dynode_core.video import exact_fps
from . import model_folders, sockets
from .devices import LoadedGenerator, outside_inference_mode
from .invert import SHEET_KEYFRAMES, SHEET_TILE_PX, reconstruction_sheet
from .pictures import sheet
from .saved_files import NO_FILE, prefix_input, stamp, write_output


class SaveCodes(io.ComfyNode):
    """Write codes into the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_SaveCodes",
            display_name="Save Codes",
            category=sockets.CATEGORY,
            description="Writes the codes of the keyframes to a safetensors file in ComfyUI's output folder, with the "
            "tuned weights, the times, and the names of the generator and of the clip. Load Codes reads it again.",
            search_aliases=["export codes", "save latents", "save inversion", "save w plus", "dynode"],
            inputs=[
                sockets.Codes.Input("codes", tooltip="From StyleGAN2 Invert."),
                prefix_input(model_folders.SAVED_CODES),
            ],
            outputs=[io.String.Output(id="path", display_name="path", tooltip="The file that was written.")],
            is_output_node=True,
        )

    @classmethod
    @outside_inference_mode
    def execute(cls, codes: InvertedClip, filename_prefix: str) -> io.NodeOutput:
        return write_output(filename_prefix, lambda path: save_artifact(codes, path))


class LoadCodes(io.ComfyNode):
    """Read codes from a file, whoever wrote it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_LoadCodes",
            display_name="Load Codes",
            category=sockets.CATEGORY,
            description="Reads codes that Save Codes or the command line wrote, or those of other programs (e4e, pSp, "
            "PTI, STIT, NVIDIA's projector: .pt, .npy, .npz). Nothing in such a file is ever executed.",
            search_aliases=["import codes", "load latents", "load inversion", "load w plus", "e4e", "pti", "dynode"],
            inputs=_load_inputs(),
            outputs=[
                sockets.Codes.Output(
                    id="codes", display_name="codes", tooltip="For Fit Trajectory ODE or Edit First Latent."
                ),
                io.Image.Output(
                    id="picture",
                    display_name="picture",
                    tooltip="What the generator makes of some of the codes; above them the crops of a connected clip.",
                ),
                io.String.Output(id="report", display_name="report", tooltip="What the file says, and what to mind."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> Any:
        return stamp(model_folders.CODES, file)

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        file: str,
        generator: LoadedGenerator,
        layout: str,
        first_frame: int,
        every: int,
        fps: float,
        aligned: AlignedClip | None = None,
    ) -> io.NodeOutput:
        frames = FramesOfCodes(first_frame, every, exact_fps(fps))
        path, model = model_folders.full_path(model_folders.CODES, file), generator.ready()
        codes = load_codes(path, model, frames, layout=layout, aligned=aligned)
        if aligned is not None and codes.frame_indices.max() < aligned.clip.num_frames:
            picture = reconstruction_sheet(aligned, codes, model)
        else:
            chosen = spread(len(codes.times), SHEET_KEYFRAMES).tolist()
            size = min(SHEET_TILE_PX, model.resolution)
            times = codes.times[chosen]
            faces = render(model, codes.w_plus[chosen], tuning=codes.tuning, times=times, size=size)
            picture = sheet(list(network_to_bytes(faces)), columns=len(chosen))
        return io.NodeOutput(codes, picture, describe_codes(codes), ui=ui.PreviewImage(picture, cls=cls))


def _load_inputs() -> list[io.Input]:
    files = model_folders.files(model_folders.CODES) or [NO_FILE]
    return [
        io.Combo.Input(
            "file",
            options=files,
            default=files[0],
            tooltip="Files in models/latent_codes, and in the folder codes of the output folder.",
        ),
        sockets.Generator.Input("generator", tooltip="The generator that the codes were found with."),
        io.Combo.Input(
            "layout",
            options=list(LAYOUTS),
            default=AUTOMATIC,
            tooltip="For files of other programs that hold one table: its lines are the rows of one code, or a code "
            "of W each. Automatic goes by their number.",
            advanced=True,
        ),
        io.Int.Input(
            "first_frame",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="For files of other programs: the frame of the first code, counted from 0.",
            advanced=True,
        ),
        io.Int.Input(
            "every",
            default=1,
            min=1,
            max=10_000,
            tooltip="For files of other programs: frames from one code to the next.",
            advanced=True,
        ),
        io.Float.Input(
            "fps",
            default=25.0,
            min=0.1,
            max=1000.0,
            step=0.001,
            tooltip="For files of other programs without a connected clip: frames per second.",
            advanced=True,
        ),
        sockets.Aligned.Input(
            "aligned",
            optional=True,
            tooltip="The clip that the codes belong to, from FrameAlign: gives the times of the frames.",
        ),
    ]


NODES = [SaveCodes, LoadCodes]
