"""Generator families: which codes and directions fit which generators, and how W+ rows move between two of them.

A family names architecture, data set and size: "stylegan2-ffhq-1024x18", "mobile_stylegan-ffhq-1024". MobileStyleGAN
was distilled from the StyleGAN2 of the same data set and size and shares its W, so codes with equal rows move between
the two as they are, and other W+ codes by rows that drive the same layer.

Row map of a StyleGAN2 with L rows and the MobileStyleGAN with `layers` = L/2 - 2 (1024 px: 18 rows, 7 layers, 23 rows):

    StyleGAN2 row   0      2l+1          2l+2         2l+3
    drives          b4     conv0, 8<<l   conv1, 8<<l  torgb, 8<<l
    Mobile row      0      3l+1          3l+2         3l+3

The last Mobile row drives nothing. It takes the last row that has a counterpart; so do, the other way, the rows of the
last StyleGAN2 block, whose work the inverse Haar transform does. Lists in circulation that begin 0, 1, 1, 2, 3 count a
row for the first picture output, which shares that of the first layer, and put every conv1 a row early.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

STYLEGAN2, MOBILE = "stylegan2", "mobile_stylegan"
UNKNOWN = "unknown"
"""Data set of a generator whose file does not name it: nothing is known to speak against a direction."""
SHIPPED_FAMILY = "mobile_stylegan-ffhq-1024"
"""Of the default generator, for which directions and encoders ship."""
_W_SUFFIX = "-w"
UNKNOWN_W = UNKNOWN + _W_SUFFIX
"""Family of a direction of which nobody said what it was made for."""
_PATTERN = re.compile(rf"({STYLEGAN2}|{MOBILE})-([a-z0-9]+)-(\d+)(?:x(\d+))?")


@dataclass(frozen=True)
class Family:
    """What a family's name says."""

    architecture: str
    dataset: str
    resolution: int

    @property
    def num_ws(self) -> int:
        """Rows of its W+ codes."""
        steps = self.resolution.bit_length() - 1
        return 3 * (steps - 3) + 2 if self.architecture == MOBILE else 2 * steps - 2


def parse_family(name: str) -> Family | None:
    """The parts of a family's name; None for a name of another form."""
    match = _PATTERN.fullmatch(name)
    return None if match is None else Family(match[1], match[2], int(match[3]))


def w_family(family: str) -> str:
    """Family of directions in W, which fit all generators of a data set: "ffhq-w" of "stylegan2-ffhq-1024x18"."""
    parsed = parse_family(family)
    return family if parsed is None else parsed.dataset + _W_SUFFIX


def shares_w(direction_family: str, family: str) -> bool:
    """Whether a W direction of one family (such as "ffhq-w") fits codes of another.

    It does if the data sets agree, and is given the benefit of the doubt if one of them is not known.
    """
    if not direction_family.endswith(_W_SUFFIX):
        return False
    parsed, dataset = parse_family(family), direction_family.removesuffix(_W_SUFFIX)
    known = {dataset, dataset if parsed is None else parsed.dataset} - {UNKNOWN}
    return len(known) < 2


def row_map(source: str, target: str) -> tuple[int, ...] | None:
    """For each W+ row of `target`, the row of `source` that does the same; None if no map is known.

    A map is known within a family and between StyleGAN2 and MobileStyleGAN of one data set and size (see the module).
    """
    one, other = parse_family(source), parse_family(target)
    if one is None or other is None or (one.dataset, one.resolution) != (other.dataset, other.resolution):
        return None
    if one.architecture == other.architecture:
        return tuple(range(one.num_ws))
    layers = other.resolution.bit_length() - 4
    if other.architecture == MOBILE:
        rows = [0, *(2 * layer + row for layer in range(layers) for row in (1, 2, 3))]
        return (*rows, rows[-1])
    rows = [0, *(3 * layer + row for layer in range(layers) for row in (1, 2)), 3 * layers]
    return (*rows, *[rows[-1]] * (other.num_ws - len(rows)))


def counterpart(family: str) -> str | None:
    """The family of the other architecture with the same data set and size; None for a name of another form."""
    parsed = parse_family(family)
    if parsed is None:
        return None
    architecture = STYLEGAN2 if parsed.architecture == MOBILE else MOBILE
    other = Family(architecture, parsed.dataset, parsed.resolution)
    name = f"{architecture}-{parsed.dataset}-{parsed.resolution}"
    return name if architecture == MOBILE else f"{name}x{other.num_ws}"


def move_rows(w_plus: Tensor, source: str, target: str, num_ws: int) -> Tensor:
    """`(..., L, D)` codes of one family as `(..., num_ws, D)` codes of another.

    Args:
        w_plus: codes; if all rows are equal they are codes of W, which move between all sizes of one data set.
        source: their family.
        target: the family that is wanted.
        num_ws: its rows.
    Raises:
        ValueError: no map is known from one to the other.
    """
    if source == target:
        return w_plus
    one, other = parse_family(source), parse_family(target)
    same_data = one is not None and other is not None and one.dataset == other.dataset != UNKNOWN
    if same_data and bool((w_plus == w_plus[..., :1, :]).all()):
        return w_plus[..., :1, :].repeat(*[1] * (w_plus.ndim - 2), num_ws, 1)
    rows = row_map(source, target)
    if rows is None or not same_data or len(rows) != num_ws:
        raise ValueError(
            f"These codes belong to the generator family {source!r} and can't be moved to {target!r}. Codes move "
            "between generators of one data set: W codes (equal rows, as sampled faces have them) always, W+ codes "
            "between StyleGAN2 and MobileStyleGAN of one size. Use the generator that the codes were made with."
        )
    return w_plus.index_select(-2, torch.tensor(rows, device=w_plus.device))
