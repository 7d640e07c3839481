"""Small random networks with the real structure: they test the pipeline in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dynode_pack.dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_pack.dynode_core.generators.stylegan2 import StyleGAN2
from dynode_pack.dynode_core.generators.stylegan2_config import StyleGAN2Config, expected_shapes
from dynode_pack.dynode_core.tuned_weights import Tuning

TINY_FAMILY = "mobile_stylegan-tiny-64"


def tiny_mobile_state(width: int = 16, num_layers: int = 4, w_dim: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Canonical tensors of a MobileStyleGAN with `width` channels everywhere, `8 * 2**num_layers` px."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=random)

    def affine(name: str, channels: int) -> dict[str, Tensor]:
        return {
            f"{name}.affine.weight": normal(channels, w_dim, scale=0.2 * w_dim**-0.5),
            f"{name}.affine.bias": torch.ones(channels),
        }

    state = {
        "w_avg": normal(w_dim, scale=0.1),
        "const": normal(1, width, 4, 4),
        "conv1.weight": normal(width, width, 3, 3, scale=(9 * width) ** -0.5),
        "conv1.bias": normal(width, scale=0.1),
        "conv1.noise": normal(1, 1, 4, 4, scale=0.05),
        "mapping.0.weight": normal(w_dim, w_dim, scale=w_dim**-0.5),
        "mapping.0.bias": normal(w_dim, scale=0.1),
    } | affine("conv1", width)
    for i in range(num_layers):
        side = 8 << i
        state |= affine(f"layers.{i}.up", width)
        state[f"layers.{i}.up.affine.bias"][width // 4 :] = 0.1  # little detail: pictures are smooth, as faces are
        for name, in_channels in (("conv1", width // 4), ("conv2", width)):
            prefix = f"layers.{i}.{name}"
            state |= affine(prefix, in_channels)
            state[f"{prefix}.depthwise"] = (1 + normal(in_channels, 1, 3, 3, scale=0.5)) / 6
            state[f"{prefix}.pointwise"] = normal(width, in_channels, 1, 1, scale=1.2 * in_channels**-0.5)
            state[f"{prefix}.bias"] = normal(width, scale=0.1)
            state[f"{prefix}.noise"] = normal(1, 1, side, side, scale=0.05)
    state |= affine("to_img", width)
    state["to_img.weight"] = normal(12, width, 1, 1, scale=0.1)
    state["to_img.bias"] = torch.zeros(12)
    return state


def tiny_mobile(seed: int = 0) -> MobileStyleGAN:
    """A 128 px generator with 14 W+ rows of width 16."""
    state = tiny_mobile_state(seed=seed)
    random = torch.Generator().manual_seed(99)
    raw = MobileStyleGAN(state, family=TINY_FAMILY, generator_id="raw")
    with torch.no_grad():
        pictures = raw.synthesize(raw.map(torch.randn(8, raw.z_dim, generator=random)))
    state["to_img.weight"] = state["to_img.weight"] * 0.3 / pictures.std()
    return MobileStyleGAN(state, family=TINY_FAMILY, generator_id=f"tiny{seed}")


def tiny_stylegan2_state(
    resolution: int, *, seed: int = 0, w_dim: int = 16, base: int = 256, most: int = 16, classes: int = 0
) -> tuple[dict[str, Tensor], StyleGAN2Config]:
    """Canonical tensors of a StyleGAN2 with `min(base / size, most)` channels, and its configuration.

    Pictures are smooth and well inside [-1, 1]: fine scales get little weight.
    """
    config = StyleGAN2Config(z_dim=w_dim, w_dim=w_dim, c_dim=classes, resolution=resolution, mapping_layers=2)
    channels = {res: max(4, min(base // res, most)) for res in config.block_resolutions}
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in expected_shapes(config, channels).items():
        tensor = torch.randn(shape, generator=random)
        if name.endswith("affine.bias"):
            tensor = 1 + 0.1 * tensor
        elif name.endswith(("noise_strength", ".bias")):
            tensor = 0.05 * tensor
        elif name.startswith("mapping.") and name.endswith("weight"):
            tensor = tensor / config.mapping_lr
        elif name.endswith("torgb.weight"):
            tensor = tensor * 2.0 / int(name.split(".")[1][1:]) ** 0.5
        elif name == "mapping.w_avg":
            tensor = 0.1 * tensor
        state[name] = tensor
    return state, config


def tiny_stylegan2(resolution: int, family: str, *, seed: int = 0, classes: int = 0) -> StyleGAN2:
    """A small random StyleGAN2 of any size and family."""
    state, config = tiny_stylegan2_state(resolution, seed=seed, classes=classes)
    return StyleGAN2(state, config, family=family, generator_id=f"tiny-{family}-{seed}")


def other_person(generator: Any, seed: int = 5) -> Tuning:
    """Weights a little beside those of `generator`: a person that its codes alone don't show."""
    random = torch.Generator().manual_seed(seed)
    weights = generator.tunable_parameters(64)
    return Tuning({name: w + 0.4 * w.std() * torch.randn(w.shape, generator=random) for name, w in weights.items()})
