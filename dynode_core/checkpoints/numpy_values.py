"""NumPy arrays out of pickle streams and .npy files, without NumPy's own unpickling.

Formats: `numpy.ndarray.__reduce__` (array state version 1), `numpy.dtype.__reduce__`, and NEP 1 for .npy files.
Only plain numbers: arrays of Python objects are what an attack travels in, and no checkpoint needs them.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any

import numpy as np

from .budget import Budget
from .errors import CheckpointError, RefusedCheckpointError

_NUMBER_TYPE = re.compile(r"[<>=|]?([fiu][1248]|b1|f16)$")


class PickledDtype:
    """A `numpy.dtype` on its way out of a pickle stream: its code first, its byte order with the state."""

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str):
            raise CheckpointError("The file holds an array whose type is no text.")
        if code.lstrip("<>=|").startswith("O"):
            raise RefusedCheckpointError("refused: this file holds an array of Python objects, which could run code.")
        if not _NUMBER_TYPE.match(code):
            raise CheckpointError(f"The file holds an array of type {code[:40]!r}; only plain numbers are read.")
        self.dtype = np.dtype(code)

    def accept_pickle_state(self, state: Any) -> None:
        """Take the byte order out of `(version, order, ...)`."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("The file holds an array type with a malformed state.")
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """A `numpy.ndarray` on its way out of a pickle stream; `array` is None until its state has come."""

    def __init__(self, budget: Budget) -> None:
        self.array: np.ndarray | None = None
        self._budget = budget

    def accept_pickle_state(self, state: Any) -> None:
        """Build the array from `(version, shape, dtype, is_fortran, bytes)`."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], PickledDtype):
            raise CheckpointError("The file holds an array with a malformed state.")
        _, shape, dtype, is_fortran, raw = state
        self.array = array_from_bytes(raw, dtype.dtype, shape, fortran=bool(is_fortran), budget=self._budget)


def array_from_bytes(raw: Any, dtype: np.dtype, shape: Any, *, fortran: bool, budget: Budget) -> np.ndarray:
    """A view of `raw` as an array of `shape`, after checking that the sizes agree."""
    if isinstance(raw, str):
        raw = raw.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray, memoryview)):
        raise CheckpointError("The file holds an array whose data are no bytes.")
    check_sizes(shape)
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(raw):
        raise CheckpointError(
            f"The file holds an array of shape {shape} and type {dtype}, {needed} bytes, but {len(raw)} bytes of data."
        )
    budget.spend_bytes(needed)
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def check_sizes(shape: Any) -> None:
    """Raise CheckpointError unless `shape` is a tuple of at most 8 sizes, none of them absurd."""
    if not isinstance(shape, (tuple, list)) or len(shape) > 8:
        raise CheckpointError("The file holds an array whose shape is malformed.")
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 40:
            raise CheckpointError(f"The file holds an array with an axis of size {str(size)[:40]}.")


def native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order, C order, owned by nobody else."""
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)


def read_npy(data: memoryview, budget: Budget) -> np.ndarray:
    """The array of a .npy file (NEP 1, versions 1 to 3).

    Raises:
        CheckpointError: the file is cut short, malformed, or holds anything else than numbers.
    """
    if len(data) < 12 or bytes(data[:6]) != b"\x93NUMPY":
        raise CheckpointError("This is no .npy file: it does not start with the NumPy mark.")
    wide = data[6] >= 2
    header_start = 12 if wide else 10
    header_bytes = int.from_bytes(data[8:header_start], "little")
    body_start = header_start + header_bytes
    if header_bytes > 65536 or body_start > len(data):
        raise CheckpointError("The .npy file ends within its header: it is cut short or damaged.")
    try:
        # literal_eval only builds literals; the length above bounds its recursion and its work.
        header = ast.literal_eval(bytes(data[header_start:body_start]).decode("latin-1").strip())
        code, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"The header of the .npy file is malformed: {str(error)[:80]}") from error
    dtype = PickledDtype(code).dtype
    return array_from_bytes(data[body_start:], dtype, shape, fortran=bool(fortran), budget=budget)
