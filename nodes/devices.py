"""Which device a generator runs on, and what ComfyUI's executor does to tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import comfy.model_management
import comfy.model_patcher
import torch

from ..dynode_core.generators import Generator
from ..dynode_core.inversion.encoders import StyleEncoder

P = ParamSpec("P")
R = TypeVar("R")
WORK_BYTES_PER_PIXEL = 3000
"""Activations of one synthesis with gradients, per output pixel: an upper estimate for ComfyUI's memory manager."""


def outside_inference_mode(execute: Callable[P, R]) -> Callable[P, R]:
    """Run a node's `execute` with ordinary tensors.

    ComfyUI executes nodes under `torch.inference_mode()`. What is created there can never take part in a gradient, not
    even later, so a generator or codes made there would break the nodes that optimise.
    """

    @functools.wraps(execute)
    def with_ordinary_tensors(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False):
            return execute(*args, **kwargs)

    return with_ordinary_tensors


class _Resident(torch.nn.Module):
    """Gives ComfyUI's model manager a module whose attributes it may set (it writes `device` and counters)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator under the care of ComfyUI's model manager: what flows along DYNODE_GENERATOR links."""

    patcher: comfy.model_patcher.ModelPatcher
    generator_id: str
    family: str

    def ready(self) -> Generator:
        """The generator, loaded onto ComfyUI's device; other models make room if they must."""
        generator: Any = self.patcher.model.network
        comfy.model_management.load_models_gpu(
            [self.patcher], memory_required=WORK_BYTES_PER_PIXEL * generator.resolution**2, force_full_load=True
        )
        make_ordinary(generator)
        return generator

    @property
    def resting(self) -> Generator:
        """The generator wherever it is now: for its sizes and names."""
        generator: Any = self.patcher.model.network
        return generator


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder under the care of ComfyUI's model manager: what flows along DYNODE_ENCODER links."""

    patcher: comfy.model_patcher.ModelPatcher

    def ready(self) -> StyleEncoder:
        """The encoder, loaded onto ComfyUI's device; other models make room if they must."""
        encoder: StyleEncoder = self.patcher.model.network
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        make_ordinary(encoder)
        return encoder


def hold_generator(generator: Any) -> LoadedGenerator:
    """Hand `generator` (on the CPU) to ComfyUI's model manager."""
    return LoadedGenerator(_patcher(generator), generator_id=generator.generator_id, family=generator.family)


def hold_encoder(encoder: StyleEncoder) -> LoadedEncoder:
    """Hand `encoder` (on the CPU) to ComfyUI's model manager."""
    return LoadedEncoder(_patcher(encoder))


def _patcher(network: Any) -> comfy.model_patcher.ModelPatcher:
    return comfy.model_patcher.ModelPatcher(
        _Resident(network),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def make_ordinary(module: torch.nn.Module) -> None:
    """Replace weights that another node's run moved between devices under inference mode by ordinary copies."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.is_inference():
                setattr(part, name, torch.nn.Parameter(weight.detach().clone(), requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_inference():
                part.register_buffer(name, buffer.clone(), persistent=name not in part._non_persistent_buffers_set)
