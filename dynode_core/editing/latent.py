"""The code of the first frame, and linear edits of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..families import MOBILE, STYLEGAN2, counterpart, parse_family, row_map, shares_w
from ..rows import depth_mask
from ..types import EditDirection, EditedLatent, InvertedClip, LatentTrajectory
from .conditional import keeping
from .leakage import compensation
from .networks import NetworkEdit

W_FAMILY = "ffhq-w"
"""Family of the shipped W directions: one row that fits every generator whose W is that of StyleGAN2-FFHQ."""

MOST_STYLEGAN2_ROWS = 18
"""Of a 1024 px generator."""

LAYER_PRESETS = {
    "all": (0.0, 1.0),
    "coarse (pose)": (0.0, 0.22),
    "middle (shape)": (0.22, 0.44),
    "fine (colour)": (0.44, 1.0),
}
"""Fractions of the rows: 0-3, 4-7 and 8-17 of StyleGAN2's 18 rows, and the same depth in other generators."""


def first_latent(source: InvertedClip | LatentTrajectory | EditedLatent) -> EditedLatent:
    """The code that editing starts from: the first observed one, unedited, or `source` itself if it is one."""
    if isinstance(source, EditedLatent):
        return source
    w_plus_0 = source.w_plus[0] if isinstance(source, InvertedClip) else source.w_plus_0
    return EditedLatent(w_plus_0, w_plus_0, (), source.family, source.tuning)


def apply_direction(
    latent: EditedLatent,
    direction: EditDirection | NetworkEdit,
    strength: float,
    layers: str = "all",
    keep: Sequence[EditDirection | NetworkEdit] = (),
) -> EditedLatent:
    """Add `strength` times the direction to the chosen rows of the code; edits add up in any order.

    A network's change is that of the code as edited so far, so there the order counts.

    Args:
        layers: a preset of `LAYER_PRESETS`, or rows such as "0-7" or "0,1,4-6".
        keep: other directions whose attributes stay where they are: by what was measured for shipped ones (see
            `leakage`), else by taking the common part out (see `conditional`).
    Raises:
        ValueError: the direction does not fit the code, `layers` names no rows of it, or nothing is left of it.
    """
    delta = applied_rows(direction, latent.w_plus_0, latent.family, layers)
    if keep:
        others = [applied_rows(other, latent.w_plus_0, latent.family) for other in keep]
        shares = compensation(direction.name, [other.name for other in keep])
        if shares is None:
            delta = keeping(delta, others)
        else:
            mask = layer_mask(layers, len(delta))[:, None]
            delta = delta + mask * sum(share * other for share, other in zip(shares, others, strict=True))
    label = edit_label(direction.name, strength, layers)
    label += f" keeping {' and '.join(other.name for other in keep)}" if keep else ""
    return replace(latent, w_plus_0=latent.w_plus_0 + strength * delta, edits=(*latent.edits, label))


def applied_rows(edit: EditDirection | NetworkEdit, code: Tensor, family: str, layers: str = "all") -> Tensor:
    """`(L, D)`: what strength 1 adds to the `(L, D)` `code`, 0 on the rows that are left alone.

    Raises:
        ValueError: as `apply_direction`.
    """
    direction = edit.at(code, family) if isinstance(edit, NetworkEdit) else edit
    mask = layer_mask(layers, len(code)) * depth_mask(direction.depth, len(code))
    return mask[:, None] * direction_rows(direction, code.shape, family)


def check_direction_fits(direction: EditDirection | NetworkEdit, shape: torch.Size, family: str) -> None:
    """Raise ValueError, saying why, if codes of `shape` (L, D) of `family` can't be edited with `direction`."""
    if isinstance(direction, NetworkEdit):
        direction.check_fits(shape, family)
    else:
        direction_rows(direction, shape, family)


def direction_rows(direction: EditDirection, shape: torch.Size, family: str) -> Tensor:
    """The direction as `(L, D)` rows that fit a code of `shape`.

    Rows made for the other architecture of the same data set and size are moved (see `families`): those of StyleGAN2
    fit MobileStyleGAN and the other way round; those of a StyleGAN2 of another size by the resolution that they drive.
    Equal rows fit every generator of their data set.

    Raises:
        ValueError: width or rows differ, or the direction was made for another family.
    """
    num_ws, w_dim = shape
    rows = direction.direction
    if rows.shape[-1] != w_dim:
        raise ValueError(
            f"Direction {direction.name!r} has width {rows.shape[-1]} (shape {tuple(rows.shape)}), but the codes "
            f"have width {w_dim}: it was made for another generator. Choose a direction of width {w_dim}."
        )
    fits_w, moves = shares_w(direction.family, family), row_map(direction.family, family) is not None
    if not (direction.family == family or fits_w or moves):
        raise ValueError(
            f"Direction {direction.name!r} was made for the generator family {direction.family!r}, but the codes "
            f"belong to {family!r}. Choose a direction of this family."
        )
    if rows.ndim == 1:
        return rows.expand(num_ws, w_dim)
    if bool((rows == rows[:1]).all()):
        return rows[:1].expand(num_ws, w_dim)
    return rows if len(rows) == num_ws else _moved_rows(direction, num_ws, family)


def _moved_rows(direction: EditDirection, num_ws: int, family: str) -> Tensor:
    """Rows that differ, of a direction with as many as the other architecture has, on those of `family`.

    Row i of any StyleGAN2 drives the same resolution, so rows of a generator of another size are cut off, or 0 where it
    has none.
    """
    source = counterpart(family) or ""
    own, other = parse_family(family), parse_family(source)
    rows, given = row_map(source, family), len(direction.direction)
    named = parse_family(direction.family)
    if own is not None and named in (None, own, other) and given % 2 == 0 and 8 <= given <= MOST_STYLEGAN2_ROWS:
        if own.architecture == STYLEGAN2 and own.num_ws == num_ws:
            return _cut_or_filled(direction.direction, num_ws)
        if own.architecture == MOBILE and other is not None and rows is not None and len(rows) == num_ws:
            return _cut_or_filled(direction.direction, other.num_ws)[list(rows)]
    if other is None or rows is None or (given, num_ws) != (other.num_ws, len(rows)):
        also = f", {other.num_ws} (as {source} has)" if other is not None else ""
        raise ValueError(
            f"Direction {direction.name!r} has {given} rows that differ, but the codes have {num_ws} rows: it was made "
            f"for a generator with another number of layers. Choose one with {num_ws} rows{also}, with those of a "
            "StyleGAN2 of another size (8, 10, ... 18), or with equal rows."
        )
    return direction.direction[list(rows)]


def _cut_or_filled(rows: Tensor, num_ws: int) -> Tensor:
    """`(num_ws, D)`: the first rows, then 0."""
    return torch.cat([rows[:num_ws], rows.new_zeros(max(0, num_ws - len(rows)), rows.shape[1])])


def edit_label(what: str, strength: float, layers: str) -> str:
    """How an edit is listed: "smile=2", and the rows where they are not all: "smile=2@0-7"."""
    return f"{what}={strength:g}" + ("" if layers == "all" else f"@{layers}")


def layer_mask(layers: str, num_ws: int) -> Tensor:
    """`(L,)` float32 with 1 at the rows that `layers` names (see `apply_direction`).

    Raises:
        ValueError: not a preset and not a list of rows, or rows outside 0 to L - 1.
    """
    mask = torch.zeros(num_ws)
    if layers in LAYER_PRESETS:
        return depth_mask(LAYER_PRESETS[layers], num_ws)
    for part in layers.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            presets = ", ".join(repr(name) for name in LAYER_PRESETS)
            raise ValueError(
                f"layers should be one of {presets}, or rows such as '0-7' or '0,1,4-6', but is {layers!r}."
            )
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high or high >= num_ws:
            raise ValueError(f"layers {part!r} is outside the rows 0 to {num_ws - 1} of these codes.")
        mask[low : high + 1] = 1
    return mask
