"""Read a small ONNX network (weights and the list of its operations) without onnx or protobuf.

ONNX is a protocol-buffer message; only the handful of fields that a feed-forward network uses are read, the rest is
skipped. Nothing is executed here. Field numbers: the public `onnx.proto3`; the reader is ours, because the onnx
package brings a protobuf version of its own into the host's environment.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import CheckpointError

MAX_BYTES = 512 * 2**20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TENSOR_TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
_MAX_DIMENSIONS = 8

Fields = dict[int, list[int | memoryview]]
AttributeValue = float | int | list[int] | np.ndarray | None


@dataclass(frozen=True)
class OnnxNode:
    """One operation: `outputs = operation(inputs, **attributes)`."""

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxGraph:
    """Operations in order, constants by name, and the names of what goes in and comes out."""

    nodes: tuple[OnnxNode, ...]
    constants: dict[str, np.ndarray]
    input_name: str
    output_name: str


def read_onnx(path: Path) -> OnnxGraph:
    """Read a network with one input and one output.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError (a ValueError): too large, cut short, or no ONNX network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no ONNX network at {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path.name} is larger than {MAX_BYTES // 2**20} MiB, too large for a loss network.")
    try:
        model = _fields(memoryview(path.read_bytes()))
        graph = _fields(_blob(model[7][0]))
        constants = dict(_tensor(_blob(blob)) for blob in graph.get(5, []))
        nodes = tuple(_node(_blob(blob)) for blob in graph[1])
        inputs = [_text(_fields(_blob(blob))[1]) for blob in graph[11]]
        outputs = [_text(_fields(_blob(blob))[1]) for blob in graph[12]]
        input_name = next(name for name in inputs if name not in constants)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    except (KeyError, IndexError, StopIteration, UnicodeDecodeError, struct.error) as error:
        raise CheckpointError(f"{path.name} is not a complete ONNX network. Download it again.") from error
    return OnnxGraph(nodes, constants, input_name, outputs[0])


def _node(blob: memoryview) -> OnnxNode:
    fields = _fields(blob)
    attributes = dict(_attribute(_blob(item)) for item in fields.get(5, []))
    inputs, outputs = (tuple(_text([item]) for item in fields.get(number, [])) for number in (1, 2))
    return OnnxNode(_text(fields[4]), inputs, outputs, attributes)


def _attribute(blob: memoryview) -> tuple[str, AttributeValue]:
    fields = _fields(blob)
    name = _text(fields[1])
    if 8 in fields:
        return name, _integers(fields[8])
    if 5 in fields:
        return name, _tensor(_blob(fields[5][0]))[1]
    if 2 in fields:
        return name, struct.unpack("<f", _blob(fields[2][0]))[0]
    return name, _signed(fields[3][0]) if 3 in fields else None


def _tensor(blob: memoryview) -> tuple[str, np.ndarray]:
    fields = _fields(blob)
    name = _text(fields[8]) if 8 in fields else ""
    shape = _integers(fields.get(1, []))
    kind = _signed(fields[2][0])
    if kind not in _TENSOR_TYPES:
        raise CheckpointError(f"the constant {name!r} is of element type {kind}; only plain numbers are read.")
    if len(shape) > _MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise CheckpointError(f"the constant {name!r} has the impossible shape {shape}.")
    data = _data(fields, kind)
    if data.size != math.prod(shape):
        raise CheckpointError(f"the constant {name!r} should hold {math.prod(shape)} values, but holds {data.size}.")
    return name, data.reshape(shape)


def _data(fields: Fields, kind: int) -> np.ndarray:
    dtype = np.dtype(_TENSOR_TYPES[kind])
    if 9 in fields:
        raw = _blob(fields[9][0])
        if len(raw) % dtype.itemsize:
            raise CheckpointError("a constant ends within a number.")
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
    if 4 in fields:
        packed = b"".join(bytes(_blob(item)) for item in fields[4])
        return np.frombuffer(packed, "<f4").astype(dtype)
    return np.array(_integers(fields.get(7, fields.get(5, []))), dtype=dtype)


def _fields(blob: memoryview) -> Fields:
    found: Fields = {}
    for number, value in _walk(blob):
        found.setdefault(number, []).append(value)
    return found


def _walk(blob: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one message: varints as int, everything else as bytes."""
    place = 0
    while place < len(blob):
        tag, place = _varint(blob, place)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, place = _varint(blob, place)
            yield number, value
            continue
        if wire == _BYTES:
            size, place = _varint(blob, place)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise CheckpointError("not an ONNX file.")
        if place + size > len(blob):
            raise CheckpointError("the file is cut short or damaged. Download it again.")
        yield number, blob[place : place + size]
        place += size


def _varint(blob: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(blob):
            raise CheckpointError("the file is cut short or damaged. Download it again.")
        byte = blob[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise CheckpointError("not an ONNX file.")


def _integers(values: list[int | memoryview]) -> list[int]:
    """A repeated integer field, packed or not."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(_signed(value))
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            numbers.append(_signed(number))
    return numbers


def _signed(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise CheckpointError("not an ONNX file.")
    return value - 2**64 if value >= 2**63 else value


def _blob(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise CheckpointError("not an ONNX file.")
    return value


def _text(values: list[int | memoryview]) -> str:
    return bytes(_blob(values[0])).decode()
