"""An edit from a picture: a frame, changed by any other program, becomes a change of the code (ours).

Not the edited picture itself is reconstructed but the CHANGE: it is added to what the generator makes of the unedited
code, and the code follows. So what inversion lost does not enter the edit. What the generator cannot express is
reported, as figures and as a picture, and can be carried as a texture instead (`blending.texture`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blending.region import unit_landmarks
from ..blending.shots import Shots
from ..blending.texture import make_texture
from ..blending.textured import LANDMARK_SMOOTHING
from ..checks import check_family, check_network_output
from ..faces.align import has_face
from ..generators.protocol import Generator
from ..generators.tuning import with_tuning
from ..inversion.code_space import measure_code_space
from ..inversion.emphasis import emphasis_map
from ..inversion.identity_loss import IdentityNetwork
from ..inversion.losses import LossWeights
from ..inversion.optimise import Stage
from ..inversion.perceptual import PerceptualDistance
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..tuned_weights import tuning_at
from ..types import AlignedClip, EditedLatent, FaceTexture
from .latent import edit_label, layer_mask
from .picture_change import FindFaces, PictureChange, compare_pictures
from .picture_fit import FitFrame, fit_offset
from .picture_frames import ClipCodes, carried_change, supporting_frames
from .picture_report import PictureReport, measure_edit

SIZE = 256
QUALITIES = {
    "draft": (Stage(128, 24, 0.04),),
    "normal": (Stage(128, 30, 0.04), Stage(256, 10, 0.03, exact=True)),
    "fine": (Stage(128, 40, 0.04), Stage(256, 30, 0.03, exact=True)),
}
"""Small steps: Adam moves every coordinate alike. With a rate of 0.15 mouths of other frames broke (one clip)."""
WEIGHTS = LossWeights(row_mean=0.0, size=0.004)
_CHANGED_WEIGHT = 4.0
"""Of what was changed, where the face weighs 1 and its eyes and lips 6 (`inversion.emphasis`). With half of the weight
on what was changed, a drawn moustache took on 72 % of its colours, as dark lips in another person's face (measured on
one clip): the rest of the face has to be held."""
_NO_CHANGE = 1e-5
_NOT_ASKED = "The strength is 0: nothing was asked of the generator, and the texture carries all of it."


@dataclass(frozen=True)
class PictureEdit:
    """What became of an edited picture."""

    latent: EditedLatent
    report: PictureReport
    pictures: Tensor
    """`(4, 3, S, S)` in [-1, 1], CPU: source, edited picture, the generator's version, what it could not express
    (grey: nothing)."""
    texture: FaceTexture | None
    """To carry what the generator could not express; None: the clip has no face, nothing was changed, or the strength
    is negative."""


@dataclass(frozen=True)
class PictureSettings:
    """How an edited picture becomes an edit."""

    strength: float = 1.0
    """Factor on the change of the code; 0 leaves all of it to the texture."""
    layers: str = "all"
    """Rows of the code that may change; see `editing.layer_mask`."""
    quality: str = "normal"
    """One of `QUALITIES`."""
    support: int = 2
    """So many other frames have to show the same change (0: only the edited one); needs their codes."""

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise ValueError(f"quality should be one of {', '.join(QUALITIES)}, but is {self.quality!r}.")
        if self.support < 0:
            raise ValueError(f"support should be 0 or more, but is {self.support}.")


def edit_from_image(
    latent: EditedLatent,
    edited_picture: Tensor,
    aligned: AlignedClip,
    generator: Generator,
    *,
    perceptual: PerceptualDistance | None,
    strength: float = 1.0,
    mask: Tensor | None = None,
    codes: ClipCodes | None = None,
    find_faces: FindFaces | None = None,
    identity: IdentityNetwork | None = None,
    progress: Progress = silent,
) -> EditedLatent:
    """Carry a picture edit of the first frame into the first code: `compare_pictures`, then `fit_picture`.

    Returns:
        The edited code; its last label says which share of the change the generator could express.
    Raises:
        ValueError: as `compare_pictures` and `fit_picture`.
    """
    check_family("The first code", latent.family, generator.family)
    change = compare_pictures(aligned, edited_picture, mask=mask, find_faces=find_faces, identity=identity)
    settings = PictureSettings(strength=strength)
    found = fit_picture(
        latent, change, aligned, generator, settings, perceptual=perceptual, codes=codes, progress=progress
    )
    return found.latent


def fit_picture(
    latent: EditedLatent,
    change: PictureChange,
    aligned: AlignedClip,
    generator: Generator,
    settings: PictureSettings | None = None,
    *,
    perceptual: PerceptualDistance | None,
    codes: ClipCodes | None = None,
    base: Tensor | None = None,
    progress: Progress = silent,
) -> PictureEdit:
    """The smallest change of the code that shows what was changed in a picture, and nothing where nothing was.

    Args:
        latent: what is edited so far; the new change is added.
        change: the frame before and after.
        codes: of other frames, which then support that of the picture (see `picture_fit`).
        base: `(L, D)` unedited code of the frame of the picture; None: that of the latent.
        progress: called after each step with target and result side by side; may raise to cancel.
    Raises:
        ValueError: `layers` names no rows of the code, or the code belongs to another generator.
    """
    settings = settings or PictureSettings()
    check_family("The first code", latent.family, generator.family)
    rows = layer_mask(settings.layers, generator.num_ws)
    time_s = float(aligned.clip.frame_times[change.frame_index])
    generator = with_tuning(generator, tuning_at(latent.tuning, time_s))
    if float(change.difference.abs().mean()) < _NO_CHANGE:
        return _without_change(latent, change)
    base = (latent.base_w_plus_0 if base is None else base).to(generator.device)
    with reuse_large_blocks():
        offset = torch.zeros_like(base[None])
        if settings.strength:
            frames = _fit_frames(base, change, aligned, generator, codes, settings.support)
            offset = _search(generator, frames, perceptual, rows, QUALITIES[settings.quality], progress)
        steps = [base[None], base + offset, base + settings.strength * offset]
        size = change.source.shape[-1]
        before, after, shown = (_picture(generator, code, size) for code in steps)
    if not settings.strength:
        change = replace(change, notes=(*change.notes, _NOT_ASKED))
    report = measure_edit(change, before, after)
    pictures = torch.cat([change.source, change.painted, shown.clamp(-1, 1), change.difference - (after - before)])
    edited = latent.w_plus_0 + settings.strength * offset[0].cpu()
    label = edit_label("picture", settings.strength, settings.layers)
    label = f"{label} ({report.expressed:.0%} expressed)"
    edited_latent = replace(latent, w_plus_0=edited, edits=(*latent.edits, label))
    drawn = after if settings.strength > 1 else shown
    texture = None if settings.strength < 0 else _texture(change, aligned, before[0], drawn[0])
    return PictureEdit(edited_latent, report, pictures.clamp(-1, 1), texture)


def _fit_frames(
    base: Tensor,
    change: PictureChange,
    aligned: AlignedClip,
    generator: Generator,
    codes: ClipCodes | None,
    support: int,
) -> list[FitFrame]:
    """The frame of the picture and those that support it."""
    size = min(SIZE, generator.resolution)
    index = change.frame_index
    changes = [(base, index, _resized(torch.cat([change.difference, change.changed], dim=1), size))]
    if codes is not None and support:
        for k in supporting_frames(aligned, codes, change.frame_index, support):
            other = int(codes.frame_indices[k])
            changes.append((codes.w_plus[k], other, carried_change(aligned, change, other, size)))
    frames = []
    for code, index, moved in changes:
        own, moved = code[None].to(generator.device), moved.to(generator.device)
        with torch.no_grad():
            now = generator.synthesize(own, size=size)
        emphasis = _emphasis(emphasis_map(aligned, index, size).to(moved), moved[:, 3:])
        frames.append(FitFrame(own, (now + moved[:, :3]).clamp(-1, 1), emphasis))
    return frames


def _search(
    generator: Generator,
    frames: list[FitFrame],
    perceptual: PerceptualDistance | None,
    rows: Tensor,
    stages: tuple[Stage, ...],
    progress: Progress,
) -> Tensor:
    size = frames[0].target.shape[-1]
    stages = tuple(replace(stage, size=min(stage.size, size)) for stage in stages)
    total, done = sum(stage.steps for stage in stages), 0

    def on_step(k: int, image: Tensor) -> None:
        nonlocal done
        done += 1
        check_network_output("The generator", image)
        pair = torch.cat([frames[k].target, F.interpolate(image.float(), size=size)], dim=3)
        progress(done, total, network_to_bytes(pair)[0])

    space = measure_code_space(generator)
    return fit_offset(generator, frames, perceptual, space, stages, WEIGHTS, rows=rows, on_step=on_step)


@torch.no_grad()
def _picture(generator: Generator, w_plus: Tensor, size: int) -> Tensor:
    """`(1, 3, size, size)`, CPU."""
    fits = size <= generator.resolution and generator.resolution % size == 0 and size & (size - 1) == 0
    return _resized(generator.synthesize(w_plus, size=size if fits else None).float().cpu(), size)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def _emphasis(face: Tensor, changed: Tensor) -> Tensor:
    """`(1, 1, S, S)` with mean 1: what was changed, and the features of the face where they have to stay."""
    weight = face + changed * (face.clamp_min(_CHANGED_WEIGHT) - face)
    return weight / weight.mean()


def _without_change(latent: EditedLatent, change: PictureChange) -> PictureEdit:
    report = PictureReport(1.0, 1.0, 1.0, 0.0, 0.0, change.likeness, change.notes)
    pictures = torch.cat([change.source, change.painted, change.source, torch.zeros_like(change.source)])
    return PictureEdit(replace(latent, edits=(*latent.edits, "picture (no change)")), report, pictures, None)


def _texture(change: PictureChange, aligned: AlignedClip, before: Tensor, drawn: Tensor) -> FaceTexture | None:
    index = change.frame_index
    if not has_face(aligned.track) or not aligned.track.is_fitted[index]:
        return None
    landmarks = unit_landmarks(aligned, Shots(aligned), index, 0.0, LANDMARK_SMOOTHING)
    return make_texture(change.source[0], change.painted[0], before, drawn, change.changed[0], landmarks, index)
