"""A feed-forward ONNX network as a differentiable module: what face embedders are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.errors import CheckpointError
from ..checkpoints.onnx_file import OnnxGraph, OnnxNode

_LARGEST_STEP = 16
"""Of padding, stride and dilation: a damaged file must not ask for pictures that fill the memory."""

Operation = Callable[[list[Tensor], dict[str, Any]], Tensor]


class FeedForward(nn.Module):
    """Runs the operations of an ONNX graph in order; frozen, differentiable in its input.

    Raises:
        CheckpointError (a ValueError): the graph uses an operation or a setting that is not known here.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        unknown = sorted({node.operation for node in graph.nodes} - OPERATIONS.keys() - {"Constant"})
        if unknown:
            raise CheckpointError(f"The ONNX network uses {', '.join(unknown)}; known are {', '.join(OPERATIONS)}.")
        self._input, self._output = graph.input_name, graph.output_name
        constants = dict(graph.constants)
        for node in graph.nodes:
            if node.operation == "Constant":
                constants[node.outputs[0]] = node.attributes["value"]  # type: ignore[assignment]
        self._nodes = [node for node in graph.nodes if node.operation != "Constant"]
        self._buffer_of = {name: f"constant{i}" for i, name in enumerate(constants)}
        for name, array in constants.items():
            self.register_buffer(self._buffer_of[name], torch.from_numpy(array.copy()))
        self._last_use = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}
        self.eval()

    @property
    def subtracts_first(self) -> bool:
        """Whether the network normalises its pictures itself (its first operation is a subtraction)."""
        return self._nodes[0].operation == "Sub"

    def forward(self, x: Tensor) -> Tensor:
        """`(N, ...)` input to the network's output."""
        values = {self._input: x}
        for i, node in enumerate(self._nodes):
            values[node.outputs[0]] = self._run(node, values)
            for name in node.inputs:
                if self._last_use[name] == i:
                    values.pop(name, None)
        return values[self._output]

    def _run(self, node: OnnxNode, values: dict[str, Tensor]) -> Tensor:
        inputs = [
            values[name] if name in values else getattr(self, self._buffer_of[name]) for name in node.inputs if name
        ]
        return OPERATIONS[node.operation](inputs, node.attributes)


def _convolve(x: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    steps = [*(attributes.get("pads") or ()), *(attributes.get("strides") or ()), *(attributes.get("dilations") or ())]
    if not all(0 <= step <= _LARGEST_STEP for step in steps):
        raise CheckpointError(f"The ONNX network has a convolution with steps {steps}; known are 0 to {_LARGEST_STEP}.")
    top, left, bottom, right = attributes.get("pads") or (0, 0, 0, 0)
    if (top, left) != (bottom, right):
        raise CheckpointError("The ONNX network has a convolution with uneven padding, which is not known here.")
    return F.conv2d(
        x[0],
        x[1],
        x[2] if len(x) > 2 else None,
        stride=attributes.get("strides") or 1,
        padding=(top, left),
        dilation=attributes.get("dilations") or 1,
        groups=attributes.get("group", 1),
    )


def _normalise(x: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=attributes.get("epsilon", 1e-5))


def _linear(x: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    weight = x[1] if attributes.get("transB", 0) else x[1].T
    return F.linear(x[0], weight, x[2] if len(x) > 2 else None)


OPERATIONS: dict[str, Operation] = {
    "Add": lambda x, a: x[0] + x[1],
    "BatchNormalization": _normalise,
    "Clip": lambda x, a: torch.clamp(x[0], x[1], x[2]),
    "Conv": _convolve,
    "Dropout": lambda x, a: x[0],
    "Flatten": lambda x, a: x[0].flatten(1),
    "Gemm": _linear,
    "Mul": lambda x, a: x[0] * x[1],
    "PRelu": lambda x, a: F.prelu(x[0], x[1].flatten()),
    "Relu": lambda x, a: F.relu(x[0]),
    "Reshape": lambda x, a: x[0].flatten(1),
    "Sub": lambda x, a: x[0] - x[1],
}
"""What the networks of the field use (MobileFaceNet, SFace, ArcFace's residual networks)."""
