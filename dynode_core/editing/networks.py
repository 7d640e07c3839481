"""Edits that are small networks: what they add depends on the code that they are shown.

Two kinds are in use, and both are read from their projects' state dicts by names and shapes:

- the latent transformer (Yao et al. 2021, arXiv 2106.11895): one linear layer per row, w + strength * T(w);
- the mapper of StyleCLIP (Patashnik et al. 2021, arXiv 2103.17249): four layers for the coarse, the middle and the
  fine rows each, or for all rows at once; w + 0.1 * M(w). Its PixelNorm runs over the rows, as in the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..families import MOBILE, counterpart, parse_family, row_map
from ..types import EditDirection

MAPPER_SHARE = 0.1
"""What StyleCLIP multiplies a mapper's output by: strength 1 is its authors' strength."""
_MAPPER_LR = 0.01
_MAPPER_PARTS: dict[str, tuple[int, int | None]] = {
    "course_mapping": (0, 4),
    "coarse_mapping": (0, 4),
    "medium_mapping": (4, 8),
    "fine_mapping": (8, None),
    "mapping": (0, None),
}
_MAPPER_NAME = re.compile(r"(?:.*\.)?mapper\.(\w+)\.mapping\.(\d+)\.(weight|bias)")
_DENSE_NAME = re.compile(r"(?:.*\.)?dense\.(\d+)\.(weight|bias)")


Layers = tuple[tuple[Tensor, Tensor], ...]
"""Weight `(D, D)` and bias `(D,)` of consecutive layers."""
Parts = tuple[tuple[int, int | None, Layers], ...]
"""Rows from - to (None: the last), and the layers that they go through."""


@dataclass(frozen=True)
class NetworkEdit:
    """A change of codes of width `w_dim`, as a function of the code."""

    name: str
    parts: Parts
    num_ws: int | None
    """Rows of the codes that it takes; None: as many as a StyleGAN2 of any size has."""
    w_dim: int

    @property
    def is_mapper(self) -> bool:
        """Whether it is StyleCLIP's; else the latent transformer's."""
        return len(self.parts[0][2]) > 1

    @torch.no_grad()
    def change(self, code: Tensor) -> Tensor:
        """`(num_ws, D)` code to what strength 1 adds to it."""
        total = torch.zeros_like(code)
        for first, stop, layers in self.parts:
            total[first:stop] = _mapped(code[first:stop], layers) if self.is_mapper else _linear(code[first], *layers)
        return total * MAPPER_SHARE if self.is_mapper else total

    def at(self, code: Tensor, family: str) -> EditDirection:
        """The edit of this code as a direction: `(L, D)` rows of `family`.

        Raises:
            ValueError: the code has another width, or rows that can't be moved to those the network was made for.
        """
        to_code, to_network = self._row_maps(code.shape, family)
        change = self.change(code.cpu().float()[list(to_network)])[list(to_code)]
        return EditDirection(self.name, change, family)

    def check_fits(self, shape: torch.Size, family: str) -> None:
        """Raise ValueError unless codes of `shape` (L, D) can be edited."""
        self._row_maps(shape, family)

    def _row_maps(self, shape: torch.Size, family: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """For each row of the code the row of the network, and the other way."""
        num_ws, w_dim = shape
        if w_dim != self.w_dim:
            raise ValueError(
                f"The edit {self.name!r} is a network for codes of width {self.w_dim}, but the codes have width "
                f"{w_dim}: it was made for another generator."
            )
        own = parse_family(family)
        is_mobile = own is not None and own.architecture == MOBILE
        if num_ws == self.num_ws or (self.num_ws is None and not is_mobile and num_ws > 8):
            return tuple(range(num_ws)), tuple(range(num_ws))
        other = counterpart(family) or ""
        to_code, to_network = row_map(other, family), row_map(family, other)
        known = is_mobile and to_code and to_network and len(to_code) == num_ws
        if known and self.num_ws in (None, len(to_network or ())):
            return to_code or (), to_network or ()
        raise ValueError(
            f"The edit {self.name!r} is a network for codes of {self.num_ws or 18} rows, but the codes have {num_ws}, "
            f"and no row map to {family!r} is known. Use a generator with {self.num_ws or 18} rows (1024 px has 18)."
        )


def network_edit(name: str, tensors: Mapping[str, Tensor]) -> NetworkEdit | None:
    """The edit network in the tensors of a file, or None if there is none.

    Raises:
        ValueError: it is one, but layers are missing or do not fit together.
    """
    for read in (_latent_transformer, _style_clip_mapper):
        parts = read(tensors)
        if parts:
            w_dim = parts[0][2][0][0].shape[1]
            for _, _, layers in parts:
                for weight, bias in layers:
                    if tuple(weight.shape) != (w_dim, w_dim) or tuple(bias.shape) != (w_dim,):
                        raise ValueError(
                            f"{name} looks like an edit network, but a layer has weights of shape "
                            f"{tuple(weight.shape)}; expected ({w_dim}, {w_dim}). The file is damaged or another kind."
                        )
            num_ws = None if len(parts[0][2]) > 1 else len(parts)
            return NetworkEdit(name, parts, num_ws, w_dim)
    return None


def _layers(found: Mapping[int, dict[str, Tensor]], count: int, what: str) -> Layers:
    """Weight and bias of `count` consecutive layers."""
    first = min(found)
    try:
        return tuple((found[i]["weight"].float(), found[i]["bias"].float()) for i in range(first, first + count))
    except KeyError as error:
        raise ValueError(f"{what} lacks a layer or a part of it ({error.args[0]!r}): the file is incomplete.") from None


def _latent_transformer(tensors: Mapping[str, Tensor]) -> Parts:
    rows: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _DENSE_NAME.fullmatch(name)
        if match:
            rows.setdefault(int(match[1]), {})[match[2]] = tensor
    if not rows:
        return ()
    layers = _layers(rows, max(rows) + 1, "The latent transformer")
    return tuple((row, row + 1, (layer,)) for row, layer in enumerate(layers))


def _style_clip_mapper(tensors: Mapping[str, Tensor]) -> Parts:
    parts: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        match = _MAPPER_NAME.fullmatch(name)
        if match and match[1] in _MAPPER_PARTS:
            parts.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = tensor
    return tuple((*_MAPPER_PARTS[part], _layers(found, 4, "The StyleCLIP mapper")) for part, found in parts.items())


def _linear(row: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
    """Equalised linear layer: weight / sqrt(D)."""
    weight, bias = layer
    return F.linear(row, weight / weight.shape[1] ** 0.5, bias)


def _mapped(rows: Tensor, layers: Layers) -> Tensor:
    x = rows * torch.rsqrt(rows.square().mean(dim=0, keepdim=True) + 1e-8)
    for weight, bias in layers:
        gain = _MAPPER_LR / weight.shape[1] ** 0.5
        x = F.leaky_relu(F.linear(x, weight * gain, bias * _MAPPER_LR), 0.2) * 2**0.5
    return x
