"""Write small ONNX networks byte by byte: what the reader is tested against, independent of it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _tensor(name: str, array: np.ndarray) -> bytes:
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    dims = b"".join(_number(1, size) for size in array.shape)
    return dims + _number(2, kind) + _bytes(8, name) + _bytes(9, array.tobytes())


def _attribute(name: str, value: Any) -> bytes:
    if isinstance(value, float):
        return _bytes(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, 1)
    if isinstance(value, int):
        return _bytes(1, name) + _number(3, value) + _number(20, 2)
    return _bytes(1, name) + b"".join(_number(8, item) for item in value) + _number(20, 7)


def _value(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dims)))


def write_onnx(
    nodes: Sequence[tuple[str, Sequence[str], str, Mapping[str, Any]]],
    constants: Mapping[str, np.ndarray],
    input_shape: Sequence[int],
    output_shape: Sequence[int],
) -> bytes:
    """A model file from "input" to "output"; nodes are (operation, inputs, output, attributes)."""
    graph = b"".join(
        _bytes(
            1,
            b"".join(_bytes(1, name) for name in inputs)
            + _bytes(2, output)
            + _bytes(4, operation)
            + b"".join(_bytes(5, _attribute(*item)) for item in attributes.items()),
        )
        for operation, inputs, output, attributes in nodes
    )
    graph += b"".join(_bytes(5, _tensor(name, array)) for name, array in constants.items())
    graph += _bytes(2, "graph") + _bytes(11, _value("input", input_shape)) + _bytes(12, _value("output", output_shape))
    return _number(1, 7) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 11))


def embedder(seed: int = 0, side: int = 112, width: int = 8, *, subtracts: bool = True) -> bytes:
    """A small network of the kind that embeds faces, with random weights."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    pooled = side // 4
    constants = {
        "w1": normal(width, 3, 3, 3),
        "w2": normal(width, 1, 3, 3),
        "b2": normal(width, 1).ravel(),
        "scale": 1 + normal(width, 1).ravel() / 9,
        "shift": normal(width, 1).ravel(),
        "mean": normal(width, 1).ravel(),
        "variance": np.abs(normal(width, 1)).ravel() + 0.5,
        "slope": np.abs(normal(width, 1, 1)),
        "w3": normal(16, width * pooled * pooled),
        "b3": normal(16, 1).ravel(),
    }
    conv = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        ("Conv", ["centred", "w1"], "a", conv | {"group": 1}),
        ("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], "b", {"epsilon": 1e-3}),
        ("PRelu", ["b", "slope"], "c", {}),
        ("Conv", ["c", "w2", "b2"], "d", conv | {"group": width}),
        ("Relu", ["d"], "e", {}),
        ("Flatten", ["e"], "f", {}),
        ("Gemm", ["f", "w3", "b3"], "output", {"alpha": 1.0, "beta": 1.0, "transB": 1}),
    ]
    if subtracts:
        constants |= {"half": np.full(1, 127.5, np.float32), "factor": np.full(1, 1 / 128, np.float32)}
        before = [("Sub", ["input", "half"], "x", {}), ("Mul", ["x", "factor"], "centred", {})]
    else:
        before = [("Add", ["input", "nothing"], "centred", {})]
        constants |= {"nothing": np.zeros(1, np.float32)}
    return write_onnx([*before, *nodes], constants, (1, 3, side, side), (1, 16))
