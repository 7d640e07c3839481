"""IR-SE-50: the residual network with squeeze-and-excitation that face encoders and ArcFace share.

Facts: `models.encoders.helpers` and `model_irse` of pixel2style2pixel and encoder4editing (after InsightFace_Pytorch).
Widths are read off the weights, so networks of any width load.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

UNITS_PER_STAGE = (3, 4, 14, 3)
NUM_UNITS = sum(UNITS_PER_STAGE)
TAPS = (6, 20, 23)
"""The units whose outputs the feature pyramid uses: 1/4, 1/8 and 1/16 of the input's size."""

_FIRST_OF_STAGE = (0, 3, 7, 21)

State = Mapping[str, Tensor]


def missing(state: State, name: str) -> Tensor:
    """The tensor `name`; its absence is a ValueError that names it."""
    if name not in state:
        raise ValueError(f"These weights lack {name}: not a complete IR-SE-50 encoder.")
    return state[name]


class SqueezeExcite(nn.Module):
    """Scale each channel by a factor computed from all channel means."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(scale))


class Unit(nn.Module):
    """One residual unit; halves the size if `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, hidden: int, stride: int) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcite(outputs, hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


def input_layer(state: State) -> nn.Sequential:
    """The first convolution, of the width in `state`."""
    width, channels = missing(state, "input_layer.0.weight").shape[:2]
    return nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))


def body(state: State) -> nn.Sequential:
    """The 24 residual units, of the widths in `state`."""
    units = []
    for i in range(NUM_UNITS):
        outputs, inputs = missing(state, f"body.{i}.res_layer.1.weight").shape[:2]
        hidden = missing(state, f"body.{i}.res_layer.5.fc1.weight").shape[0]
        units.append(Unit(inputs, outputs, hidden, 2 if i in _FIRST_OF_STAGE else 1))
    return nn.Sequential(*units)


def load_strictly(network: nn.Module, state: State) -> None:
    """Load every tensor of `network` from `state`; more tensors may be there, none may be missing or misshapen.

    Raises:
        ValueError: names the first tensor that is missing or has another shape.
    """
    own = network.state_dict()
    wanted = {}
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            wanted[name] = tensor
            continue
        found = missing(state, name)
        if found.shape != tensor.shape:
            raise ValueError(f"{name} should have shape {tuple(tensor.shape)}, but has shape {tuple(found.shape)}.")
        wanted[name] = found.detach().clone().to(tensor.dtype)
    network.load_state_dict(wanted)
