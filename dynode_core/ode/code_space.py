"""The state of fields that work on whole codes: the code itself, divided by one number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodeSpace:
    """W+ codes <-> states y = z / scale, with the interface of `Subspace`."""

    scale: float
    code_shape: tuple[int, int]

    @property
    def rank(self) -> int:
        return self.code_shape[0] * self.code_shape[1]

    @property
    def mean(self) -> Tensor:
        return torch.zeros(self.rank)

    def encode(self, w_plus: Tensor) -> Tensor:
        """`(N, L, D)` to `(N, L * D)` float64."""
        return w_plus.reshape(len(w_plus), -1).double() / self.scale

    encode_change = encode

    def decode(self, states: Tensor) -> Tensor:
        """`(N, L * D)` to `(N, L, D)` float32."""
        return (states.float() * self.scale).reshape(-1, *self.code_shape)

    decode_change = decode

    def outside(self, change: Tensor) -> Tensor:
        """Nothing lies outside: `(L, D)` zeros."""
        return torch.zeros_like(change)
