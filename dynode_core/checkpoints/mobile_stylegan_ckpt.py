"""The canonical MobileStyleGAN state from the training checkpoints of bes-dev/MobileStyleGAN.pytorch (Lightning).

Facts: `core.models.mobile_synthesis_network` and `mapping_network` of that repository. The forward pass here folds
every constant into the weights: 1/sqrt(fan-in) into the affine layers, the frozen demodulation (which depends on the
buffer `style_inv`, not on the style) into the pointwise weights, the 1/2 of the Haar transform into what follows it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .canonical import CanonicalGenerator, dataset_of, file_hint
from .container import OpenedFile
from .errors import CheckpointError
from .mobile_stylegan_ir import mean_w
from .tensors import as_tensor, is_tensor

_MAPPING_LR = 0.01
_MAX_LAYERS = 9


def state_of(opened: OpenedFile) -> dict[Any, Any] | None:
    """The state dict of a MobileStyleGAN training checkpoint; None if the file is another."""
    state = opened.root.get("state_dict") if isinstance(opened.root, dict) else None
    is_mobile = isinstance(state, dict) and "student.layers.0.conv1.conv.weight_dw" in state
    return state if is_mobile else None


def read_mobile_checkpoint(opened: OpenedFile) -> CanonicalGenerator:
    """The student network of a MobileStyleGAN training checkpoint.

    Raises:
        CheckpointError: tensors are missing or misshapen.
    """
    values = state_of(opened) or {}
    source = {
        name: as_tensor(value, opened.budget).float()
        for name, value in values.items()
        if isinstance(name, str) and is_tensor(value) and name.startswith(("mapping_net.", "student.", "style_mean"))
    }
    try:
        state = _mapping(source) | _synthesis(source)
        w_dim = len(state["mapping.0.bias"])
        state["w_avg"] = (
            source["style_mean"].reshape(-1, w_dim).mean(dim=0) if "style_mean" in source else mean_w(state)
        )
    except KeyError as error:
        raise CheckpointError(f"This MobileStyleGAN checkpoint lacks {error.args[0]!r}: it is incomplete.") from error
    except (RuntimeError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"The tensors of this MobileStyleGAN checkpoint do not fit together ({error})."
        ) from error
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    resolution = 2 * state[f"layers.{_count(source) - 1}.conv2.noise"].shape[-1]
    family = f"mobile_stylegan-{dataset_of((file_hint(opened.path),))}-{resolution}"
    return CanonicalGenerator("mobile_stylegan", state, None, family, "MobileStyleGAN checkpoint")


def _mapping(source: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    indices = sorted(
        int(name.split(".")[2]) for name in source if name.startswith("mapping_net.layers.") and name.endswith("weight")
    )
    for i, index in enumerate(indices[:32]):
        weight = source[f"mapping_net.layers.{index}.weight"]
        state[f"mapping.{i}.weight"] = weight * (_MAPPING_LR * weight.shape[1] ** -0.5)
        state[f"mapping.{i}.bias"] = source[f"mapping_net.layers.{index}.bias"] * _MAPPING_LR
    if not state:
        raise KeyError("mapping_net.layers.1.weight")
    return state


def _count(source: dict[str, Tensor]) -> int:
    count = 0
    while count < _MAX_LAYERS and f"student.layers.{count}.conv1.conv.weight_dw" in source:
        count += 1
    return count


def _synthesis(source: dict[str, Tensor]) -> dict[str, Tensor]:
    dense = source["student.conv1.conv.weight"]
    scale = dense[0].numel() ** -0.5
    demodulation = _frozen_demodulation(dense, source["student.conv1.conv.style_inv"], scale)
    state = {
        "const": source["student.input.input"],
        "conv1.weight": dense * demodulation[:, None, None, None],
        "conv1.bias": source["student.conv1.bias"].flatten(),
        "conv1.noise": _noise(source, "student.conv1", 4),
    }
    state |= _affine(source, "student.conv1.conv", "conv1", scale)
    for i in range(_count(source)):
        name, target = f"student.layers.{i}", f"layers.{i}"
        state |= _affine(source, f"{name}.up", f"{target}.up", 0.5)
        for j in (1, 2):
            state |= _separable(source, f"{name}.conv{j}", f"{target}.conv{j}", 8 << i)
    last = f"student.layers.{_count(source) - 1}.to_img"
    weight = source[f"{last}.conv.weight"]
    state |= _affine(source, f"{last}.conv", "to_img", weight.shape[1] ** -0.5)
    state["to_img.weight"] = weight * 0.5
    state["to_img.bias"] = source[f"{last}.bias"].flatten() * 0.5
    return state


def _separable(source: dict[str, Tensor], name: str, target: str, res: int) -> dict[str, Tensor]:
    depthwise, pointwise = source[f"{name}.conv.weight_dw"], source[f"{name}.conv.weight_permute"]
    scale = (len(depthwise) * 9) ** -0.5
    whole = depthwise.transpose(0, 1) * pointwise
    demodulation = _frozen_demodulation(whole, source[f"{name}.conv.style_inv"], scale)
    state = {
        f"{target}.depthwise": depthwise,
        f"{target}.pointwise": pointwise * demodulation[:, None, None, None],
        f"{target}.bias": source[f"{name}.bias"].flatten(),
        f"{target}.noise": _noise(source, name, res),
    }
    return state | _affine(source, f"{name}.conv", target, scale)


def _affine(source: dict[str, Tensor], name: str, target: str, scale: float) -> dict[str, Tensor]:
    return {
        f"{target}.affine.weight": source[f"{name}.modulation.weight"] * scale,
        f"{target}.affine.bias": source[f"{name}.modulation.bias"].flatten() * scale,
    }


def _frozen_demodulation(weight: Tensor, style: Tensor, scale: float) -> Tensor:
    """`(O,)`: rsqrt of the summed squares of the `(O, I, 3, 3)` weights under the frozen style `(1, 1, I, 1, 1)`.
    In double precision, so that every processor rounds to the same weights."""
    modulated = weight.double() * style.double().reshape(1, -1, 1, 1) * scale
    return torch.rsqrt(modulated.square().sum(dim=(1, 2, 3)) + 1e-8).to(weight.dtype)


def _noise(source: dict[str, Tensor], name: str, res: int) -> Tensor:
    # Checkpoints hold the strength only; training draws noise anew each time. Seeded here, so that a face stays itself.
    drawn = torch.randn(1, 1, res, res, generator=torch.Generator().manual_seed(res * 2 + int(name.endswith("conv2"))))
    return drawn * source[f"{name}.noise.weight"].reshape(())
