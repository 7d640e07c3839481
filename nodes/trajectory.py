"""Fit Trajectory ODE: the clip as a solution of a differential equation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management
from comfy_api.latest import io, ui

from ..dynode_core.checks import check_family
from ..dynode_core.inversion.path_loss import PathPictureLoss
from ..dynode_core.layout import bytes_to_pictures
from ..dynode_core.ode import (
    REFERENCES,
    GradientSettings,
    TrajectorySettings,
    fit_trajectory,
    path_in_plane,
    plot_trajectory,
    train_trajectory,
)
from ..dynode_core.ode.external import TORCHDIFFEQ_DOPRI5
from ..dynode_core.types import InvertedClip, LatentTrajectory
from . import model_folders, sockets
from .devices import LoadedGenerator, outside_inference_mode
from .judges import perceptual_on
from .progress import NodeProgress

AUTOMATIC = "automatic"
BY_HAND = "by hand"
CLOSED_FORM, PAPER, RELEASED = "closed form", "gradient (paper)", "gradient (released program)"
_STRENGTH = io.Float.Input(
    "strength",
    default=1.0,
    min=0.0,
    max=1_000_000.0,
    step=0.1,
    tooltip="0 passes through every keyframe; more is smoother. In units of the mean gap between keyframes, cubed.",
)


_TRAINING = [
    io.Int.Input(
        "steps", default=5000, min=1, max=1_000_000, tooltip="Gradient steps. More go on with a finished run."
    ),
    io.Float.Input(
        "learning_rate",
        default=0.01,
        min=0.000001,
        max=1.0,
        step=0.000001,
        tooltip="Of Adam. The paper has 0.01.",
    ),
    io.Int.Input("batch", default=8, min=1, max=512, tooltip="Keyframes per step beside the first, at random."),
]
_NETWORK = [
    io.Int.Input("hidden", default=256, min=8, max=4096, tooltip="Units of each hidden layer of the network."),
    io.Boolean.Input("use_time", default=True, tooltip="Whether the network sees the time, beside the code."),
    io.Boolean.Input(
        "adjoint",
        default=False,
        tooltip="Gradients by the adjoint equation of torchdiffeq: constant memory, but slower.",
    ),
    io.Float.Input(
        "image_weight",
        default=0.0,
        min=0.0,
        max=1000.0,
        step=0.01,
        tooltip="Weight of the difference of the pictures; needs the generator. Each step then renders faces: slow.",
    ),
    io.Float.Input(
        "feature_weight",
        default=0.0,
        min=0.0,
        max=1000.0,
        step=0.01,
        tooltip="Weight of the perceptual distance of the pictures; needs the generator.",
    ),
    io.Combo.Input(
        "picture_size", options=["64", "128", "256", "512"], default="128", tooltip="Side of those pictures in pixels."
    ),
    io.Float.Input(
        "latent_weight",
        default=1.0,
        min=0.0,
        max=1000.0,
        step=0.01,
        tooltip="Weight of the mean square difference of the codes. 0 trains on the pictures alone.",
    ),
]


class FitTrajectory(io.ComfyNode):
    """Fit dz/dt = f(z, t) to the codes of the keyframes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynODE_FitTrajectory",
            display_name="Fit Trajectory ODE (GPU DOPRI5)",
            category=sockets.CATEGORY,
            description="Fits a differential equation whose solution passes through the codes of the keyframes. From "
            "then on the whole clip follows from its first code.",
            search_aliases=["neural ode", "dopri5", "latent trajectory", "dynode", "ode fit", "continuous time"],
            inputs=_fit_inputs(),
            outputs=trajectory_outputs(),
        )

    @classmethod
    @outside_inference_mode
    def execute(
        cls,
        codes: InvertedClip,
        smoothing: Mapping[str, Any],
        state_dependence: float,
        cuts: str,
        rank: int,
        reference: str,
        check_held_out: bool,
        seed: int,
        fit: Mapping[str, Any] | None = None,
        generator: LoadedGenerator | None = None,
    ) -> io.NodeOutput:
        if fit is not None and fit["fit"] != CLOSED_FORM:
            trajectory = train(codes, fit, seed, generator, cuts=cuts)
        else:
            settings = TrajectorySettings(
                reference=reference,
                smoothing=smoothing["strength"] if smoothing["smoothing"] == BY_HAND else None,
                rank=rank,
                state_dependence=state_dependence,
                cuts=cuts,
                check_held_out=check_held_out,
                seed=seed,
                device=str(comfy.model_management.get_torch_device()),
            )
            trajectory = fit_trajectory(codes, settings, progress=NodeProgress())
        return show_trajectory(trajectory, cls)


def trajectory_outputs() -> list[io.Output]:
    """Outputs of the nodes that give a trajectory; `show_trajectory` fills them."""
    return [
        sockets.Trajectory.Output(
            id="trajectory", display_name="trajectory", tooltip="For Edit First Latent and Solve At Times."
        ),
        io.Image.Output(
            id="plot",
            display_name="plot",
            tooltip="The strongest axes of the codes against time: keyframes as points, the solution as lines.",
        ),
        io.String.Output(id="report", display_name="report", tooltip="What was checked after the fit, as text."),
    ]


def show_trajectory(trajectory: LatentTrajectory, node: type[io.ComfyNode]) -> io.NodeOutput:
    """A trajectory with its plot and its report; `node` shows the plot, and the path for `web/js` to run through."""
    plot = bytes_to_pictures(plot_trajectory(trajectory))[None]
    shown = {**ui.PreviewImage(plot, cls=node).as_dict(), "dynode_path": [path_in_plane(trajectory)]}
    return io.NodeOutput(trajectory, plot, fit_report(trajectory), ui=shown)


def train(
    codes: InvertedClip, fit: Mapping[str, Any], seed: int, generator: LoadedGenerator | None, *, cuts: str = "auto"
) -> LatentTrajectory:
    """Train by gradients, with losses on pictures if their weights ask for them."""
    image_weight, feature_weight = fit.get("image_weight", 0.0), fit.get("feature_weight", 0.0)
    pictures = None
    if image_weight > 0 or feature_weight > 0:
        if generator is None:
            raise ValueError("image_weight and feature_weight need the generator: connect it, or set both to 0.")
        check_family("The codes", codes.family, generator.family)
        model = generator.ready()
        perceptual = perceptual_on(model.device) if feature_weight > 0 else None
        size = int(fit["picture_size"])
        pictures = PathPictureLoss(model, perceptual, size, image_weight, feature_weight, codes.tuning)
    adjoint = fit.get("adjoint", False)
    settings = GradientSettings(
        variant="released" if fit["fit"] == RELEASED else "paper",
        steps=fit["steps"],
        learning_rate=fit["learning_rate"],
        batch=fit["batch"],
        hidden=fit.get("hidden", 256),
        use_time=fit.get("use_time", True),
        solver=TORCHDIFFEQ_DOPRI5 if adjoint else "dopri5",
        adjoint=adjoint,
        latent_weight=fit.get("latent_weight", 1.0),
        picture_weight=0.0 if pictures is None else 1.0,
        cuts=cuts,
        seed=seed,
        device=str(comfy.model_management.get_torch_device()),
    )
    return train_trajectory(
        codes,
        settings,
        picture_loss=pictures,
        picture_loss_id="" if pictures is None else pictures.loss_id,
        cache_dir=model_folders.cache_dir("trajectories"),
        progress=NodeProgress(),
    )


def fit_report(trajectory: LatentTrajectory) -> str:
    """What was checked after the fit: warnings first, then every fact, one per line."""
    facts = dict(trajectory.certificate)
    warnings = facts.pop("warnings", [])
    lines = [f"WARNING: {warning}" for warning in warnings]
    lines.append(f"keyframes: {len(trajectory.times)} over {trajectory.times[-1] - trajectory.times[0]:.2f} s")
    for name, value in facts.items():
        if name == "losses":
            name, value = (
                "loss at first / last / lowest",
                " / ".join(f"{x:.4g}" for x in (value[0], value[-1], min(value))),
            )
        shown = f"{value:.4g}" if isinstance(value, float) else value
        lines.append(f"{name.replace('_', ' ')}: {shown}")
    return "\n".join(lines)


def fit_input(*, optional: bool) -> io.DynamicCombo.Input:
    """The choice between the closed form and training, with its settings."""
    return io.DynamicCombo.Input(
        "fit",
        options=[
            io.DynamicCombo.Option(CLOSED_FORM, []),
            io.DynamicCombo.Option(PAPER, [*_TRAINING, *_NETWORK]),
            io.DynamicCombo.Option(RELEASED, _TRAINING),
        ],
        optional=optional,
        tooltip="How the field is found. closed form takes a second and is closest to the codes; the others train "
        "a network by gradients, as the paper and the authors' program do, and of the other settings use cuts and "
        "seed only.",
    )


def _fit_inputs() -> list[io.Input]:
    return [
        sockets.Codes.Input("codes", tooltip="Codes of the keyframes, from StyleGAN2 Invert."),
        io.DynamicCombo.Input(
            "smoothing",
            options=[io.DynamicCombo.Option(AUTOMATIC, []), io.DynamicCombo.Option(BY_HAND, [_STRENGTH])],
            tooltip="How smooth the path is between keyframes. automatic measures how much the codes tremble.",
        ),
        io.Float.Input(
            "state_dependence",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="0 carries an edit through the clip unchanged. Towards 1 the motion depends on the state, so that "
            "an edit also changes how the face moves, and drifts.",
        ),
        io.Combo.Input(
            "cuts",
            options=["auto", "none"],
            default="auto",
            tooltip="auto: each shot that FrameAlign saw, or that the codes show, gets a path of its own. none fits "
            "one smooth path over everything.",
        ),
        io.Int.Input(
            "rank",
            default=64,
            min=1,
            max=512,
            tooltip="Axes of the space in which the path is fitted, at most one less than there are keyframes.",
            advanced=True,
        ),
        io.Combo.Input(
            "reference",
            options=list(REFERENCES),
            default=REFERENCES[0],
            tooltip="The curve through the keyframes that the field is fitted to. auto chooses by their "
            "number. learned trains on the clip for a minute or more: for motion that repeats; the report says if it "
            "was taken.",
            advanced=True,
        ),
        io.Boolean.Input(
            "check_held_out",
            default=True,
            tooltip="Also fit every other keyframe and report how well the rest are predicted.",
            advanced=True,
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip="Of the random parts of the field. Same seed, same trajectory.",
            advanced=True,
        ),
        fit_input(optional=True),
        sockets.Generator.Input(
            "generator", optional=True, tooltip="Only for training with image_weight or feature_weight."
        ),
    ]


NODES = [FitTrajectory]
