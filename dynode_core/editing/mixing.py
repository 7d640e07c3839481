"""Two codes to one between them, or to a path from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..code_stream import CodeStream
from ..families import move_rows
from ..generators.protocol import Generator
from ..tuned_weights import Tuning, first_set
from ..types import EditedLatent, TrajectorySample
from .latent import edit_label, layer_mask


def mix_latents(a: EditedLatent, b: EditedLatent, weight: float, layers: str = "all") -> EditedLatent:
    """`a + weight * (b - a)` on the chosen rows, `a` on the others.

    What was edited counts as an edit of `a`: its code before any edit stays the base.

    Args:
        weight: 0 is `a`, 1 is `b`; values outside go beyond them.
        layers: see `editing.apply_direction`.
    Raises:
        ValueError: the codes are of generators that share no codes, or tuned to two persons, or `layers` names no rows.
    """
    label = edit_label("mix", weight, layers)
    b = latent_for(b, a.family, a.w_plus_0.shape)
    mixed = a.w_plus_0 + weight * _way(a, b, layers)
    return replace(a, w_plus_0=mixed, edits=(*a.edits, label), tuning=_one_tuning(a.tuning, b.tuning))


def _way(a: EditedLatent, b: EditedLatent, layers: str) -> Tensor:
    """`(L, D)` from `a` to `b`, which are codes of one family; 0 on the rows that are not chosen."""
    return layer_mask(layers, len(a.w_plus_0))[:, None] * (b.w_plus_0 - a.w_plus_0)


def morph_latents(
    a: EditedLatent, b: EditedLatent, frames: int, fps: Fraction, layers: str = "all"
) -> TrajectorySample:
    """A path of `frames` codes in equal steps along the straight line: the first is `a`, the last `b` (see
    `mix_latents` for rows that are not chosen). Codes are made when they are read: memory does not grow with `frames`.

    Raises:
        ValueError: fewer than 2 frames, or as `mix_latents`.
    """
    if frames < 2:
        raise ValueError(f"A morph should have at least 2 frames, but has {frames}.")
    last = mix_latents(a, b, 1.0, layers)
    start = a.w_plus_0.clone()
    way = _way(a, latent_for(b, a.family, start.shape), layers)

    def read(index: Tensor) -> Tensor:
        weights = (index.double() / (frames - 1)).to(start.dtype)
        return start + weights[:, None, None] * way

    return TrajectorySample(
        w_plus=CodeStream(frames, (start.shape[0], start.shape[1]), read),
        base_w_plus=a.base_w_plus_0.clone().expand(frames, -1, -1),
        times=np.arange(frames) / float(fps),
        fps=fps,
        family=a.family,
        generator_id="",
        edits=last.edits,
        tuning=first_set(last.tuning),  # these frames have times of their own
    )


def sample_of(latents: Sequence[EditedLatent], fps: Fraction = Fraction(1)) -> TrajectorySample:
    """Codes as the frames of a clip of their own, so that they can be rendered: one frame per latent.

    Raises:
        ValueError: there are none, or they belong to several families or persons.
    """
    if not latents or len({latent.family for latent in latents}) != 1:
        families = ", ".join(sorted({latent.family for latent in latents})) or "none"
        raise ValueError(f"Codes of one generator family are needed to render them together, but there are {families}.")
    tuning = latents[0].tuning
    for latent in latents[1:]:
        tuning = _one_tuning(tuning, latent.tuning)
    return TrajectorySample(
        w_plus=torch.stack([latent.w_plus_0 for latent in latents]),
        base_w_plus=torch.stack([latent.base_w_plus_0 for latent in latents]),
        times=np.arange(len(latents)) / float(fps),
        fps=fps,
        family=latents[0].family,
        generator_id="",
        edits=latents[-1].edits,
        tuning=first_set(tuning),
    )


def sampled_latents(w_plus: Tensor, generator: Generator) -> list[EditedLatent]:
    """One unedited latent per code `(N, L, D)` of `generator`."""
    return [EditedLatent(code.clone(), code.clone(), (), generator.family) for code in w_plus.cpu()]


def latent_for(latent: EditedLatent, family: str, shape: torch.Size) -> EditedLatent:
    """`latent` as a code of another family of the same data set (see `families.move_rows`); itself if it is of it.

    Raises:
        ValueError: codes don't move between the two, or weights tuned for one generator came with the code.
    """
    if latent.family == family:
        return latent
    codes = torch.stack([latent.w_plus_0, latent.base_w_plus_0])
    moved = move_rows(codes, latent.family, family, shape[0])
    if latent.tuning is not None or moved.shape[-1] != shape[1]:
        why = "came with weights tuned for its own generator" if latent.tuning else f"has width {moved.shape[-1]}"
        raise ValueError(
            f"A code of {latent.family!r} {why}, so it can't be used as one of {family!r}. Connect the generator that "
            "it was made with."
        )
    return replace(latent, w_plus_0=moved[0], base_w_plus_0=moved[1], family=family)


def _one_tuning(a: Tuning | None, b: Tuning | None) -> Tuning | None:
    """The tuning of two codes that are drawn by one generator."""
    if a is None or b is None:
        return a if b is None else b
    if not a.equals(b):
        raise ValueError(
            "The two codes come with a generator tuned to one clip each, and one generator has to draw both. Invert "
            "one of them with tune_generator off."
        )
    return a
