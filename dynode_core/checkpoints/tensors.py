"""The tensors of a file, whatever the file: directions, latents, state dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .budget import Budget
from .container import OpenedFile, open_file
from .errors import CheckpointError
from .numpy_values import PickledArray, native, read_npy
from .safe_pickle import Record
from .torch_values import PendingTensor

BARE = "tensor"
"""The name under which a file that holds one unnamed tensor gives it."""

_MAX_DEPTH = 32


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a .npy, .npz, .pt, .pth, .ckpt, .pkl or .safetensors file, by name, on the CPU.

    Nothing in the file is run. Nested dictionaries and lists are joined by dots ("state_dict.latent_avg", "0"); a file
    that is one tensor gives `{"tensor": ...}`. Dtypes and shapes are those of the file.

    Raises:
        FileNotFoundError: there is no such file.
        RefusedCheckpointError: the file wants to run code.
        CheckpointError (a ValueError): the file is empty, cut short, damaged, of another kind, or without tensors.
    """
    opened = open_file(path)
    if opened.kind == "safetensors":
        return load_safetensors(opened.path)[0]
    if opened.kind == "npy":
        try:
            return {BARE: array_tensor(read_npy(opened.data, opened.budget))}
        except CheckpointError as error:
            raise type(error)(f"{opened.path.name}: {error}") from error
    found: dict[str, Tensor] = {}
    try:
        _collect(opened.root, "", found, opened.budget, 0)
    except CheckpointError as error:
        raise type(error)(f"{opened.path.name}: {error}") from error
    if not found:
        raise CheckpointError(f"{opened.path.name} holds no tensors.")
    return found


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file.

    Raises:
        CheckpointError: the file is cut short or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path.name} is cut short or damaged ({error}). Download it again.") from error


def is_tensor(value: Any) -> bool:
    """Whether `value` of an opened file is a tensor or an array."""
    return isinstance(value, (PendingTensor, PickledArray))


def as_tensor(value: Any, budget: Budget) -> Tensor:
    """A CPU tensor of its own (no view of the file) for a tensor or array of an opened file."""
    if isinstance(value, PendingTensor):
        return value.tensor(budget).contiguous().clone()
    if isinstance(value, PickledArray) and value.array is not None:
        return array_tensor(value.array)
    raise CheckpointError(f"Expected a tensor in the file, found a {type(value).__name__}.")


def array_tensor(array: Any) -> Tensor:
    """The same numbers as a CPU tensor that owns them."""
    own = native(array)
    if own.dtype.kind == "f" and own.dtype.itemsize > 8:
        own = own.astype("float64")
    if own.dtype.kind == "u" and own.dtype.itemsize > 1:
        own = own.astype("int64")
    return torch.from_numpy(own)


def opened_tensors(opened: OpenedFile, value: Any) -> dict[str, Tensor]:
    """The tensors directly inside a dictionary of an opened file; anything else in it is left out."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{opened.path.name}: expected a dictionary of tensors, found a {type(value).__name__}.")
    return {
        key: as_tensor(entry, opened.budget)
        for key, entry in value.items()
        if isinstance(key, str) and is_tensor(entry)
    }


def _collect(value: Any, name: str, found: dict[str, Tensor], budget: Budget, depth: int) -> None:
    budget.spend_operations(1)
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"The file nests its content more than {_MAX_DEPTH} levels deep.")
    if is_tensor(value):
        found[name or BARE] = as_tensor(value, budget)
        return
    if isinstance(value, dict):
        children = [(key, child) for key, child in value.items() if isinstance(key, (str, int))]
    elif isinstance(value, (list, tuple)):
        children = list(enumerate(value))
    elif isinstance(value, Record):
        children = [("", value.state)] if isinstance(value.state, dict) else []
    else:
        return
    for key, child in children:
        joined = f"{name}.{key}" if name and key != "" else name or str(key)
        _collect(child, joined, found, budget, depth + 1)
