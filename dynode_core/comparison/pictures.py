"""The comparison in image space: mean square error and structural similarity, as in Table 1 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_family
from ..faces.crop import crop_clip
from ..generators.protocol import Generator
from ..layout import network_to_bytes
from ..metrics.reconstruction import mean_square_error, structural_similarity
from ..progress import Progress
from ..rendering import render
from ..spread import spread
from ..types import AlignedClip, InvertedClip
from .codes import METHODS, CodePaths

SHOWN = 6
"""Held-out frames on the contact sheet, at most."""


RenderAt = Callable[[Tensor, np.ndarray], Tensor]
"""`(n, L, D)` codes and their `(n,)` seconds of the clip to `(n, 3, S, S)` float32 in about [-1, 1]."""


@dataclass(frozen=True)
class PictureErrors:
    """Errors by method, and the pictures that are shown."""

    table: dict[str, dict[str, float]]
    """By method: mse and ssim at observed and held-out times."""
    shown: np.ndarray
    """`(n,)` indices of keyframes on the sheet."""
    tiles: dict[str, np.ndarray]
    """By method, and under `ACTUAL`: `(n, S, S, 3)` uint8."""
    against: str
    """What the pictures are compared with."""


ACTUAL = "actual"
AGAINST_CLIP = "the clip's own frames"
AGAINST_CODES = "frame-by-frame pictures: each frame's own code"


@dataclass(frozen=True)
class PictureSources:
    """Where the pictures of a comparison come from, all of one side."""

    render: RenderAt
    actual: Callable[[Sequence[int]], Tensor] | None
    """Indices of keyframes to `(n, 3, S, S)` crops of the clip; None without a clip."""


def picture_sources(
    inverted: InvertedClip,
    generator: Generator,
    size: int,
    aligned: AlignedClip | None = None,
    *,
    ready: Callable[[], Generator] | None = None,
) -> PictureSources:
    """Render codes and cut the crops of their frames, both at `size` pixels or as many as the generator draws.

    Args:
        aligned: The clip that the codes were found for.
        ready: Brings the generator to where it works, whenever a picture is rendered; None: it is there.
    Raises:
        ValueError: The codes belong to another generator, or reach past the end of the clip.
    """
    check_family("The codes", inverted.family, generator.family)
    if aligned is not None:
        check_within(inverted, aligned)
    side = min(size, generator.resolution)
    return PictureSources(
        lambda w_plus, times: render(
            generator if ready is None else ready(), w_plus, tuning=inverted.tuning, times=times, size=side
        ),
        None
        if aligned is None
        else lambda indices: crop_clip(aligned, inverted.frame_indices[list(indices)].tolist(), side),
    )


def check_within(inverted: InvertedClip, aligned: AlignedClip) -> None:
    """Raise ValueError if there are codes of frames that the clip does not have."""
    last = int(inverted.frame_indices.max())
    if last >= aligned.clip.num_frames:
        raise ValueError(
            f"The codes reach frame {last}, but the aligned clip has {aligned.clip.num_frames} frames: use the clip "
            "that the codes were found for."
        )


def compare_pictures(
    paths: CodePaths,
    render: RenderAt,
    actual: Callable[[Sequence[int]], Tensor] | None,
    *,
    most: int,
    progress: Progress,
) -> PictureErrors:
    """Render each method's codes at some observed and held-out keyframes and compare.

    Args:
        render: the generator.
        actual: Indices of keyframes to the `(n, 3, S, S)` crops of the clip; None: compare with the rendered codes of
            each frame.
        most: Frames of either kind, at most.
    """
    held, observed = np.flatnonzero(~paths.kept), np.flatnonzero(paths.kept)
    held, observed = held[spread(len(held), most)], observed[spread(len(observed), most)]
    shown = held[spread(len(held), SHOWN)]
    tiles: dict[str, list[np.ndarray]] = {name: [] for name in (*METHODS, ACTUAL)}
    scores: dict[str, dict[str, list[Any]]] = {name: {"observed": [], "held_out": []} for name in METHODS}
    asked = {"observed": observed, "held_out": held}
    total, done = len(observed) + len(held), 0
    for kind, indices in asked.items():
        codes = {method: paths.codes(method, indices) for method in METHODS}
        for place, index in enumerate(indices):
            drawn: list[tuple[Tensor, Tensor]] = []
            at = paths.times[index : index + 1]
            own = _unit(render(paths.truth[index : index + 1], at))
            drawn.append((paths.truth[index], own))
            wanted = own if actual is None else _unit(actual([int(index)]))
            for method in METHODS:
                picture = _drawn(codes[method][place], drawn, render, at)
                mse, ssim = mean_square_error(picture, wanted), structural_similarity(picture, wanted)
                scores[method][kind].append((float(mse), float(ssim)))
                if kind == "held_out" and index in shown:
                    tiles[method].append(_bytes(picture))
            if kind == "held_out" and index in shown:
                tiles[ACTUAL].append(_bytes(wanted))
            done += 1
            progress(done, total, _bytes(wanted))
    table = {
        method: {
            f"{name}_{kind}": float(np.mean([pair[column] for pair in pairs]))
            for kind, pairs in by_kind.items()
            for column, name in enumerate(("mse", "ssim"))
        }
        for method, by_kind in scores.items()
    }
    against = AGAINST_CODES if actual is None else AGAINST_CLIP
    return PictureErrors(table, shown, {name: np.stack(pictures) for name, pictures in tiles.items()}, against)


def _unit(images: Tensor) -> Tensor:
    """Network images to [0, 1]."""
    return images.detach().float().cpu().add(1).mul(0.5).clamp(0, 1)


def _bytes(pictures: Tensor) -> np.ndarray:
    """`(1, 3, S, S)` in [0, 1] to `(S, S, 3)` uint8."""
    return network_to_bytes(pictures * 2 - 1)[0]


def _drawn(code: Tensor, drawn: list[tuple[Tensor, Tensor]], render: RenderAt, at: np.ndarray) -> Tensor:
    """The picture of a code; methods that agree on the code share it."""
    for known, picture in drawn:
        if torch.equal(known, code):
            return picture
    picture = _unit(render(code[None], at))
    drawn.append((code, picture))
    return picture
