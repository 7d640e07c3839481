"""StyleGAN2 Invert: codes of the keyframes."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui
from torch import Tensor

from ..dynode_core.editing.directions import expression_directions
from ..dynode_core.faces.crop import crop_clip
from ..dynode_core.generators import Generator
from ..dynode_core.inversion import QUALITIES, InversionSettings, LossWeights, invert_clip
from ..dynode_core.inversion.settings import NEAR_W, SPACES
from ..dynode_core.layout import network_to_bytes
from ..dynode_core.rendering import render
from ..dynode_core.spread import spread
from ..dynode_core.types import AlignedClip, InvertedClip
from . import model_folders, sockets
from .devices import LoadedEncoder, LoadedGenerator, outside_inference_mode
from .judges import identity_on, perceptual_on
from .pictures import sheet
from .progress import NodeProgress

WEIGHTS = LossWeights()
SHEET_KEYFRAMES = 6
SHEET_TILE_PX = 256


class Invert(io.ComfyNode):
    """Optimise a W+ code per keyframe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_Invert",
            display_name="StyleGAN2 Invert",
            category=sockets.CATEGORY,
            description="Finds the codes with which the generator makes this face, for keyframes of the clip. The slow "
            "step: it shows the reconstruction while it works, and finished keyframes are kept.",
            search_aliases=["gan inversion", "projector", "e4e", "psp", "encode face", "w plus", "dynode"],
            inputs=_inputs(),
            outputs=[
                sockets.Codes.Output(
                    id="codes", display_name="codes", tooltip="For Fit Trajectory ODE or Edit First Latent."
                ),
                io.Image.Output(
                    id="reconstruction",
                    display_name="reconstruction",
                    tooltip="Upper row: crops of the clip. Lower row: what the generator makes of their codes.",
                ),
            ],
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        aligned: AlignedClip,
        generator: LoadedGenerator,
        quality: str,
        keyframe_every: int,
        max_keyframes: int,
        loss_target: float,
        max_steps: int,
        tune_generator: bool,
        space: str = NEAR_W,
        perceptual_weight: float = WEIGHTS.perceptual,
        pixel_weight: float = WEIGHTS.pyramid,
        likeness_weight: float = WEIGHTS.identity,
        eyes_and_mouth: float = WEIGHTS.eyes_and_mouth,
        encoder: LoadedEncoder | None = None,
        offset_rank: int = 0,
    ) -> io.NodeOutput:
        weights = replace(
            WEIGHTS,
            perceptual=perceptual_weight,
            pyramid=pixel_weight,
            identity=likeness_weight,
            eyes_and_mouth=eyes_and_mouth,
        )
        settings = InversionSettings(
            quality=quality,
            keyframe_every=keyframe_every,
            max_keyframes=max_keyframes,
            loss_target=loss_target,
            max_steps=max_steps,
            tune=tune_generator,
            space=space,
            offset_rank=offset_rank,
            weights=weights,
        )
        model = generator.ready()
        inverted = invert_clip(
            aligned,
            model,
            settings,
            perceptual=perceptual_on(model.device),
            identity=identity_on(model.device),
            encoder=None if encoder is None else encoder.ready(),
            expressions=expression_directions(model.family),
            cache_dir=model_folders.cache_dir("keyframes"),
            progress=NodeProgress(),
        )
        picture = reconstruction_sheet(aligned, inverted, model)
        return io.NodeOutput(inverted, picture, ui=ui.PreviewImage(picture, cls=cls))


def reconstruction_sheet(aligned: AlignedClip, inverted: InvertedClip, generator: Generator) -> Tensor:
    """Crops above, reconstructions below, for a few keyframes: `(1, H, W, 3)` in [0, 1]."""
    size = min(SHEET_TILE_PX, generator.resolution)
    chosen = spread(len(inverted.times), SHEET_KEYFRAMES).tolist()
    crops = crop_clip(aligned, [int(inverted.frame_indices[k]) for k in chosen], size)
    faces = render(generator, inverted.w_plus[chosen], tuning=inverted.tuning, times=inverted.times[chosen], size=size)
    return sheet([*network_to_bytes(crops), *network_to_bytes(faces)], columns=len(chosen))


def _inputs() -> list[io.Input]:
    return [
        sockets.Aligned.Input("aligned", tooltip="The clip from FrameAlign."),
        sockets.Generator.Input("generator", tooltip="From Load StyleGAN2."),
        io.Combo.Input(
            "quality",
            options=list(QUALITIES),
            default="normal",
            tooltip="How close the faces must come, and how many steps that may take. 'first guess' takes none: the "
            "codes of the encoder as they are, within a second or less per keyframe.",
        ),
        io.Int.Input(
            "keyframe_every",
            default=0,
            min=0,
            max=120,
            tooltip="Every n-th frame becomes a keyframe. 0 chooses them by movement: more where the face moves.",
        ),
        io.Int.Input(
            "max_keyframes",
            default=0,
            min=0,
            max=512,
            tooltip="At most this many keyframes, to bound the time. 0 sets no limit.",
        ),
        io.Float.Input(
            "loss_target",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.0001,
            tooltip="A keyframe is finished early once its loss is below this. 0 takes all steps of the quality.",
            advanced=True,
        ),
        io.Int.Input(
            "max_steps",
            default=0,
            min=0,
            max=5000,
            tooltip="At most this many steps per keyframe. 0 takes those of the quality.",
            advanced=True,
        ),
        io.Boolean.Input(
            "tune_generator",
            default=True,
            tooltip="Tune some weights of the generator to this person: a much closer likeness. They travel with the "
            "codes; the loaded generator itself is not changed. Not done in draft quality.",
            advanced=True,
        ),
        *_optional_inputs(),
    ]


def _optional_inputs() -> list[io.Input]:
    """Optional, so that prompts of earlier versions run as they are."""
    return [
        io.Combo.Input(
            "space",
            options=list(SPACES),
            default=NEAR_W,
            optional=True,
            tooltip="Where codes may lie. W: easiest to edit, least like the clip. W+: closest, edits break. W+ near "
            "W: between them, with a penalty on how far the rows of a code differ.",
            advanced=True,
        ),
        sockets.Encoder.Input(
            "encoder",
            optional=True,
            tooltip="From Load Encoder: the search starts from its guesses. Without one it starts from those of the "
            "encoder that ships for the default generator, and from an average face for others.",
        ),
        _weight("perceptual_weight", WEIGHTS.perceptual, "Weight of the perceptual distance."),
        _weight("pixel_weight", WEIGHTS.pyramid, "Weight of the difference of pixels at four sizes."),
        _weight("likeness_weight", WEIGHTS.identity, "Weight of the face embedder, where it is installed."),
        _weight(
            "eyes_and_mouth",
            WEIGHTS.eyes_and_mouth,
            "How much eyes and mouth count beside the cheeks. More keeps expressions, less keeps the rest.",
        ),
        io.Int.Input(
            "offset_rank",
            default=0,
            min=0,
            max=512,
            optional=True,
            tooltip="The codes of a shot may differ from their mean in at most this many dimensions; 0: any. 2 to 4 "
            "calm a face that trembles where every frame or so is a keyframe; too few lose expressions.",
            advanced=True,
        ),
    ]


def _weight(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=100.0,
        step=0.01,
        optional=True,
        tooltip=tooltip,
        advanced=True,
    )


NODES = [Invert]
