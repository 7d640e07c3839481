"""The canonical MobileStyleGAN state from the OpenVINO IR files of the PyPI package `random_face`.

Facts (checkpoint names, folded demodulation, missing scales) were read off the files and checked against the
OpenVINO runtime: image within 7e-5, w within 5e-6 in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .canonical import W_AVG_SAMPLES
from .openvino_ir import read_constants


def read_random_face(data_dir: Path) -> dict[str, Tensor]:
    """Read `SynthesisNetwork.xml` and `MappingNetwork.xml` in `data_dir` into canonical float32 tensors.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or holds another network.
    """
    synthesis = read_constants(data_dir / "SynthesisNetwork.xml")
    state = _mapping_state(read_constants(data_dir / "MappingNetwork.xml"))
    try:
        state |= _synthesis_state(synthesis)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{data_dir} holds an OpenVINO network, but not the MobileStyleGAN of random_face 2021.7.21.1 "
            f"({error} not found)."
        ) from error
    state["w_avg"] = mean_w(state)
    return {name: tensor.float().contiguous() for name, tensor in state.items()}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _mapping_state(constants: dict[str, np.ndarray]) -> dict[str, Tensor]:
    arrays = [array for array in constants.values() if array.size > 8]
    state = {}
    for i, (weight, bias) in enumerate(zip(arrays[::2], arrays[1::2], strict=True)):
        state[f"mapping.{i}.weight"], state[f"mapping.{i}.bias"] = _tensor(weight), _tensor(bias)
    return state


def _synthesis_state(constants: dict[str, np.ndarray]) -> dict[str, Tensor]:
    demodulated = [name for name in constants if name.startswith("Mul_") and name.endswith("_copy")]
    noises = [
        array
        for array in constants.values()
        if array.ndim == 4 and array.shape[:2] == (1, 1) and array.shape[2] == array.shape[3] >= 4
    ]

    def affine(source: str, target: str, scale: float) -> dict[str, Tensor]:
        return {
            f"{target}.affine.weight": _tensor(constants[f"{source}.modulation.weight"]) * scale,
            f"{target}.affine.bias": _tensor(constants[f"{source}.modulation.bias"]).flatten() * scale,
        }

    state = {
        "const": _tensor(constants["m.input.input"]),
        "conv1.weight": _tensor(constants[demodulated[0]]),
        "conv1.bias": _tensor(constants["m.conv1.bias"]).flatten(),
        "conv1.noise": _tensor(noises[0]),
    }
    first_channels = state["conv1.weight"].shape[1]
    state |= affine("m.conv1.conv", "conv1", (first_channels * 9) ** -0.5)
    num_layers = 0
    while f"m.layers.{num_layers}.up.modulation.weight" in constants:
        source, target = f"m.layers.{num_layers}", f"layers.{num_layers}"
        state |= affine(f"{source}.up", f"{target}.up", 0.5)
        for j in (1, 2):
            depthwise = _tensor(constants[f"{source}.conv{j}.conv.weight_dw"])[:, :, 0]
            state |= affine(f"{source}.conv{j}.conv", f"{target}.conv{j}", (len(depthwise) * 9) ** -0.5)
            state[f"{target}.conv{j}.depthwise"] = depthwise
            state[f"{target}.conv{j}.pointwise"] = _tensor(constants[demodulated[2 * num_layers + j]])
            state[f"{target}.conv{j}.bias"] = _tensor(constants[f"{source}.conv{j}.bias"]).flatten()
            state[f"{target}.conv{j}.noise"] = _tensor(noises[2 * num_layers + j])
        num_layers += 1
    source = f"m.layers.{num_layers - 1}.to_img"
    weight = _tensor(constants[f"{source}.conv.weight"])
    state |= affine(f"{source}.conv", "to_img", weight.shape[1] ** -0.5)
    state["to_img.weight"] = weight * 0.5
    state["to_img.bias"] = _tensor(constants[f"{source}.bias"]).flatten() * 0.5
    return state


def mean_w(state: dict[str, Tensor]) -> Tensor:
    """`(D,)` mean of the mapping network over seeded normal samples, for files that do not store w_avg."""
    z = torch.randn(W_AVG_SAMPLES, state["mapping.0.weight"].shape[1], generator=torch.Generator().manual_seed(0))
    x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
    i = 0
    while f"mapping.{i}.weight" in state:
        x = torch.nn.functional.linear(x, state[f"mapping.{i}.weight"], state[f"mapping.{i}.bias"])
        x = torch.nn.functional.leaky_relu(x, 0.2) * 2**0.5
        i += 1
    return x.mean(dim=0)
