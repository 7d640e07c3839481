"""Tensors out of torch's pickle streams: storages, views of them, parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .budget import Budget
from .errors import CheckpointError
from .numpy_values import check_sizes
from .safe_pickle import Symbol

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(eq=False)
class Storage:
    """The flat numbers behind tensors; bound late, because legacy files keep them behind the pickle stream."""

    dtype: torch.dtype
    numel: int
    flat: Tensor | None = None

    def bind(self, raw: memoryview, budget: Budget) -> None:
        """Take the numbers from `raw`, which must be as long as announced."""
        size = self.numel * self.dtype.itemsize
        if len(raw) != size:
            raise CheckpointError(f"A tensor should have {size} bytes of data, but the file holds {len(raw)} for it.")
        budget.spend_bytes(size)
        self.flat = flat_tensor(raw, self.dtype)


@dataclass(eq=False)
class PendingTensor:
    """A tensor as the pickle stream describes it: storage, offset, sizes and strides, all in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self, budget: Budget) -> Tensor:
        """A view of the storage, on the CPU; the file's device tag (cuda:0, mps) is ignored."""
        if self.storage.flat is None:
            raise CheckpointError("A tensor of the file has no data: the file is cut short. Download it again.")
        numel = math.prod(self.size)
        if numel == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if last >= self.storage.numel:
            raise CheckpointError(
                f"A tensor of shape {self.size} reaches element {last} of a storage of {self.storage.numel} elements."
            )
        budget.spend_bytes(numel * self.storage.dtype.itemsize)
        return self.storage.flat.as_strided(self.size, self.stride, self.offset)


def flat_tensor(raw: memoryview, dtype: torch.dtype) -> Tensor:
    """`raw` as a one-dimensional tensor: a view where the address is aligned, else a copy."""
    if len(raw) == 0:
        return torch.empty(0, dtype=dtype)
    octets = np.frombuffer(raw, np.uint8)
    if octets.ctypes.data % dtype.itemsize or not octets.flags.writeable:
        octets = octets.copy()
    if dtype == torch.bool:
        return torch.from_numpy(octets) != 0
    return torch.from_numpy(octets).view(dtype)


def storage_of(kind: Any, numel: Any) -> Storage:
    """The storage that a persistent id announces."""
    if not isinstance(kind, Symbol) or kind.name not in STORAGE_DTYPES:
        raise CheckpointError("The file holds a storage of a kind that is not read.")
    check_sizes((numel,))
    return Storage(STORAGE_DTYPES[kind.name], numel)


def rebuild_tensor(args: tuple[Any, ...], budget: Budget) -> PendingTensor:
    """What `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)` describes."""
    if len(args) < 4 or not isinstance(args[0], Storage):
        raise CheckpointError("The file describes a tensor without its storage.")
    storage, offset, size, stride = args[:4]
    check_sizes((offset,))
    check_sizes(size)
    check_sizes(stride)
    if len(size) != len(stride):
        raise CheckpointError(f"A tensor of the file has sizes {size} and strides {stride}.")
    return PendingTensor(storage, offset, tuple(size), tuple(stride))


def rebuild_parameter(args: tuple[Any, ...], budget: Budget) -> PendingTensor:
    """A parameter is its tensor; gradients and hooks are nothing that we take from a file."""
    if not args or not isinstance(args[0], PendingTensor):
        raise CheckpointError("The file describes a parameter without its tensor.")
    return args[0]


def rebuild_subclass(args: tuple[Any, ...], budget: Budget) -> PendingTensor:
    """`torch._tensor._rebuild_from_type_v2(function, type, args, state)`: the tensor that `function` would make."""
    if len(args) < 3 or not isinstance(args[0], Symbol) or not isinstance(args[2], tuple):
        raise CheckpointError("The file describes a tensor of a class of its own, malformed.")
    if args[0].name == "torch._utils._rebuild_parameter":
        return rebuild_parameter(args[2], budget)
    return rebuild_tensor(args[2], budget)
