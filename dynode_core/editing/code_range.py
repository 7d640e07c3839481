"""How far a code lies from those that the generator was trained to draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..generators.protocol import Generator
from ..inversion.code_space import CodeSpace, measure_code_space

FAR = 1.5
"""Standard deviations (root mean square over the axes of W) of the furthest row, from where on pictures break. Half of
the default generator's own codes lie below 0.8, and 95 % below 1.0."""

_KEPT = 4
_spaces: dict[tuple[str, str], CodeSpace] = {}


@dataclass(frozen=True)
class CodeDistance:
    """Distance to the mean code, in standard deviations of the generator's own codes."""

    before: float
    after: float
    row: int
    """The row that lies furthest after the edit."""

    @property
    def is_far(self) -> bool:
        """Whether the edit takes the code out of the generator's range; not where it already was outside."""
        return self.after > max(FAR, 1.25 * self.before)

    @property
    def text(self) -> str:
        """One sentence."""
        return (
            f"distance to the mean face: {self.after:.1f} standard deviations (row {self.row}; {self.before:.1f} "
            "before the edit)"
        )


def deviations(codes: Tensor, space: CodeSpace) -> Tensor:
    """`(..., D)` codes to the root mean square of their coordinates in units of the generator's deviations."""
    return space.encode(codes.to(space.w_avg)).square().mean(-1).sqrt().cpu()


def distance_of_edit(before: Tensor, after: Tensor, generator: Generator) -> CodeDistance:
    """Compare an `(L, D)` code before and after an edit."""
    space = _space_of(generator)
    changed = deviations(after, space)
    row = int(changed.argmax())
    return CodeDistance(float(deviations(before[row], space)), float(changed[row]), row)


def _space_of(generator: Generator) -> CodeSpace:
    """`measure_code_space`, once per generator."""
    key = (generator.generator_id, str(generator.device))
    if key not in _spaces:
        if len(_spaces) >= _KEPT:
            _spaces.clear()
        with torch.no_grad():
            _spaces[key] = measure_code_space(generator)
    return _spaces[key]
