"""Change one attribute and keep another (Shen et al. 2020, arXiv 1907.10786, "conditional manipulation")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST_LEFT = 0.05
"""Of a direction's length: with less left, it is the same direction as those to keep."""


def keeping(change: Tensor, kept: Sequence[Tensor]) -> Tensor:
    """What is left of a change after the parts along other directions are taken out of it.

    Only rows on which the change acts are looked at: it acts on no others afterwards.

    Args:
        change: `(L, D)`.
        kept: `(L, D)` each: movements along them are to stay as they are.
    Returns:
        `(L, D)`, at right angles to each of `kept` on the rows of the change.
    Raises:
        ValueError: nothing is left.
    """
    acts = change.any(dim=1)
    rows = change[acts].flatten().double()
    others = [other[acts].flatten().double() for other in kept]
    basis = [other / other.norm() for other in others if float(other.norm()) > 0]
    if not basis or not float(rows.norm()):
        return change
    orthonormal, scale = torch.linalg.qr(torch.stack(basis, dim=1))
    independent = scale.diagonal().abs() > 1e-6
    part = orthonormal[:, independent]
    left = rows - part @ (part.T @ rows)
    if float(left.norm()) < _LEAST_LEFT * float(rows.norm()):
        raise ValueError(
            "Nothing is left of the direction when those to keep are taken out of it: they are the same. Keep fewer."
        )
    result = torch.zeros_like(change)
    result[acts] = left.view(-1, change.shape[1]).to(change.dtype)
    return result
