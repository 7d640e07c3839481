"""An edit from a picture: the first frame, changed by any other program, becomes a change of the first code (ours).

Not the edited picture itself is reconstructed but the CHANGE: it is added to what the generator makes of the
unedited code, and the code follows. So what inversion lost does not enter the edit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_family
from ..faces.crop import crop, crop_clip
from ..generators.protocol import Generator
from ..generators.tuning import with_tuning
from ..inversion.code_space import measure_code_space
from ..inversion.losses import LossWeights
from ..inversion.optimise import Problem, Stage, optimise_code
from ..inversion.perceptual import PerceptualDistance
from ..layout import network_to_bytes, pictures_to_network
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..types import AlignedClip, EditedLatent

SIZE = 256
STAGES = (Stage(128, 20, 0.12), Stage(256, 25, 0.1, exact=True))
WEIGHTS = LossWeights(row_mean=0.0, size=0.001)
_CHANGED = 0.02
"""A place counts as changed from this mean difference on ([-1, 1])."""
_UNCHANGED_WEIGHT = 0.3


def edit_from_image(
    latent: EditedLatent,
    edited_picture: Tensor,
    aligned: AlignedClip,
    generator: Generator,
    *,
    perceptual: PerceptualDistance | None,
    strength: float = 1.0,
    progress: Progress = silent,
) -> EditedLatent:
    """Carry a picture edit of the first frame into the first code.

    Args:
        latent: what is edited so far; the new change is added.
        edited_picture: `(H, W, 3)` or `(1, H, W, 3)` in [0, 1]: the whole first frame with its size unchanged, or its
            square crop at any size.
        aligned: where the first frame and its quad come from.
        strength: factor on the change.
    Returns:
        The edited code; its last label says which share of the change the generator could express.
    Raises:
        ValueError: the picture is neither the frame nor a square crop.
    """
    check_family("The first code", latent.family, generator.family)
    generator = with_tuning(generator, latent.tuning)
    device = generator.device
    size = min(SIZE, generator.resolution)
    original = crop_clip(aligned, [0], size).to(device)
    edited = _as_crop(edited_picture, aligned, size).to(device)
    change = edited - original
    if float(change.abs().mean()) < 1e-4:
        return replace(latent, edits=(*latent.edits, "picture (no change)"))
    base = latent.base_w_plus_0[None].to(device)
    with reuse_large_blocks():
        with torch.no_grad():
            reconstruction = generator.synthesize(base, size=size)
        target = (reconstruction + change).clamp(-1, 1)
        space = measure_code_space(generator)
        problem = Problem(generator, target, _emphasis(change), perceptual, WEIGHTS, space, anchor=base)
        stages = tuple(replace(stage, size=min(stage.size, size)) for stage in STAGES)
        total = sum(stage.steps + 1 for stage in stages)
        done = 0

        def on_step(image: Tensor) -> None:
            nonlocal done
            done += 1
            picture = network_to_bytes(torch.cat([target, F.interpolate(image.float(), size=size)], dim=3))[0]
            progress(done, total, picture)

        found = optimise_code(problem, base, stages, loss_target=0.0, on_step=on_step)
        with torch.no_grad():
            remaining = target - generator.synthesize(found.w_plus, size=size)
    weight = (_emphasis(change) > 1).float()
    expressed = 1 - float((remaining.square() * weight).sum() / (change.square() * weight).sum().clamp_min(1e-12))
    delta = (found.w_plus - base)[0].cpu()
    label = f"picture={strength:g} ({max(0.0, expressed):.0%} expressed)"
    return replace(latent, w_plus_0=latent.w_plus_0 + strength * delta, edits=(*latent.edits, label))


def _as_crop(picture: Tensor, aligned: AlignedClip, size: int) -> Tensor:
    """`(1, 3, S, S)` in [-1, 1] of a whole frame or of a square crop."""
    pictures = picture[None] if picture.ndim == 3 else picture[:1]
    height, width = pictures.shape[1:3]
    frame_size = (aligned.clip.height, aligned.clip.width)
    if (height, width) == frame_size:
        return crop(pictures[..., :3].float(), aligned.quads[:1], size)
    if height != width:
        raise ValueError(
            f"The edited first frame should be the whole frame ({frame_size[1]} x {frame_size[0]} pixels) or its "
            f"square crop, but is {width} x {height}. Connect the picture without resizing it, or a crop of it."
        )
    return F.interpolate(
        pictures_to_network(pictures[..., :3].float()), size=(size, size), mode="bilinear", antialias=True
    )


def _emphasis(change: Tensor) -> Tensor:
    """`(1, 1, S, S)` with mean 1: high where the picture was changed."""
    changed = (change.abs().mean(dim=1, keepdim=True) > _CHANGED).float()
    soft = F.avg_pool2d(changed, 9, stride=1, padding=4)
    weight = _UNCHANGED_WEIGHT + (1 - _UNCHANGED_WEIGHT) * soft
    return weight / weight.mean()
