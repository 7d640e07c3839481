"""Commands of the command line around edited pictures: picture, transfer, and a texture on the way to blend."""

from __future__ import annotations

import argparse
import contextlib

import numpy as np
from PIL import Image
from torch import Tensor

from .artifacts import load_artifact, save_artifact
from .checks import check_family
from .cli_steps import Workplace
from .editing import codes_of, first_latent
from .editing.from_image import QUALITIES, PictureEdit, PictureSettings, fit_picture
from .editing.picture_change import compare_pictures
from .editing.picture_frames import code_at
from .editing.transfer import transfer_edit
from .faces.landmarks import FaceLandmarker
from .inversion import IdentityNetwork
from .layout import network_to_bytes
from .model_files import find_identity, find_landmarker
from .picture_files import read_mask, read_picture
from .types import AlignedClip, EditedLatent, InvertedClip, LatentTrajectory

EDITABLE = (LatentTrajectory, InvertedClip, EditedLatent)


def picture_options(parser: argparse.ArgumentParser) -> None:
    """What was edited, and how it becomes an edit of the clip."""
    group = parser.add_argument_group("picture")
    group.add_argument("--aligned", required=True, metavar="FILE", help="file made by align")
    group.add_argument("--picture", required=True, metavar="PNG", help="the edited frame, or its crop")
    group.add_argument("--mask", metavar="PNG", help="white where the picture was edited; all that differs if left out")
    group.add_argument("--frame", type=int, metavar="N", default=0, help="number of the frame that was edited")
    group.add_argument("--quality", choices=tuple(QUALITIES), default="normal", help="how long to search")
    group.add_argument("--support", type=int, metavar="N", default=2, help="other frames that have to show it too")
    _amount_options(group)
    group.add_argument("--texture", metavar="FILE", help="also write what the generator cannot express, for blend")
    group.add_argument("--sheet", metavar="PNG", help="also draw the frame, the picture, the result and what it lacks")


def transfer_options(parser: argparse.ArgumentParser) -> None:
    """How much of the edit moves over."""
    _amount_options(parser.add_argument_group("transfer"))


def texture_options(parser: argparse.ArgumentParser) -> None:
    """For `blend`: what the generator could not draw."""
    group = parser.add_argument_group("texture")
    group.add_argument("--texture", metavar="FILE", help="file made by picture --texture: moved with the face")
    group.add_argument(
        "--texture-strength", type=float, metavar="X", default=1.0, help="how much of it is seen, 0 to 1"
    )


def _amount_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--strength", type=float, metavar="X", default=1.0, help="factor on the change of the code")
    group.add_argument("--layers", metavar="ROWS", default="all", help="rows that change: all, 0-7, 'fine (colour)'")


def picture(options: argparse.Namespace) -> None:
    """A frame that another program edited to an edit of the clip."""
    settings = PictureSettings(options.strength, options.layers, options.quality, options.support)
    edited, mask = read_picture(options.picture), None if options.mask is None else read_mask(options.mask)[None]
    latent = load_artifact(options.latent, EDITABLE)
    found = _fit(options, Workplace(options), latent, edited, mask, settings)
    print(found.report.text())
    if options.sheet:
        Image.fromarray(np.hstack(list(network_to_bytes(found.pictures)))).save(options.sheet)
    if options.texture:
        if found.texture is None:
            raise ValueError("There is no texture to write: nothing was changed, or the strength is below 0.")
        save_artifact(found.texture, options.texture)
        print(options.texture)
    save_artifact(found.latent, options.out)
    print(options.out)


def _fit(
    options: argparse.Namespace,
    place: Workplace,
    latent: LatentTrajectory | InvertedClip | EditedLatent,
    edited: Tensor,
    mask: Tensor | None,
    settings: PictureSettings,
) -> PictureEdit:
    """As the node Edit From Picture does it."""
    aligned = load_artifact(options.aligned, AlignedClip)
    start = first_latent(latent)
    check_family("The latent", start.family, place.generator.family)
    codes = codes_of(latent, aligned)
    base = code_at(start, codes, aligned, options.frame)
    with _landmarker(place) as landmarker:
        change = compare_pictures(
            aligned,
            edited,
            frame_index=options.frame,
            mask=mask,
            find_faces=None if landmarker is None else landmarker.detect,
            identity=None if landmarker is None else _embedder(place),
        )
    perceptual = place.perceptual()
    with place.step("picture") as progress:
        return fit_picture(
            start,
            change,
            aligned,
            place.generator,
            settings,
            perceptual=perceptual,
            codes=codes,
            base=base,
            progress=progress,
        )


def _landmarker(place: Workplace) -> contextlib.AbstractContextManager[FaceLandmarker | None]:
    """What finds the face in the picture; without it the picture has to lie exactly over its frame."""
    try:
        return FaceLandmarker(find_landmarker(place.folders))
    except (FileNotFoundError, ImportError, RuntimeError) as reason:
        place.say(f"note: faces can't be looked for in the picture ({reason})")
        return contextlib.nullcontext()


def _embedder(place: Workplace) -> IdentityNetwork | None:
    """On the CPU, where the pictures are compared."""
    path = find_identity(place.folders)
    return None if path is None else IdentityNetwork(path, "cpu")


def transfer(options: argparse.Namespace) -> None:
    """The edit of one clip for another."""
    edit, target = load_artifact(options.edit, EditedLatent), first_latent(load_artifact(options.to, EDITABLE))
    save_artifact(transfer_edit(edit, target, options.strength, options.layers), options.out)
    print(options.out)
