"""Codes that are computed when they are read, so that the number of output times costs no memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class CodeStream:
    """`(N, L, D)` float32 CPU codes behind a function; `stream[a:b]` is a tensor, `stream[:]` holds them all.

    Each read computes its codes anew. Reading the same places gives the same codes.
    """

    def __init__(self, count: int, code_shape: tuple[int, int], read: Callable[[Tensor], Tensor]) -> None:
        """
        Args:
            read: `(n,)` int64 positions in [0, count) to `(n, L, D)` codes.
        """
        self.shape = torch.Size((count, *code_shape))
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: int | slice | Tensor) -> Tensor:
        """The codes at an index (one code, `(L, D)`), in a slice, or at `(n,)` int64 indices."""
        index = torch.arange(len(self))[place]
        return self._read(index.reshape(1))[0] if index.ndim == 0 else self._read(index)
