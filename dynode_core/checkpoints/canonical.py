"""What every reader of a generator file ends in: canonical tensors, configuration, family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..generators.stylegan2_config import StyleGAN2Config, channels_of, check_state, expected_shapes
from ..generators.stylegan2_layers import Mapping as MappingNetwork
from .errors import CheckpointError

W_AVG_SAMPLES = 20_000
"""Samples for the mean w where a file has none: its error is then below 1 % of the spread of w."""

_DATASETS = (
    ("ffhq", r"ffhq|flickr.?faces"),
    ("afhqcat", r"afhq.?(v2)?.?cat"),
    ("afhqdog", r"afhq.?(v2)?.?dog"),
    ("afhqwild", r"afhq.?(v2)?.?wild"),
    ("afhqv2", r"afhq"),
    ("celebahq", r"celeba"),
    ("metfaces", r"metfaces"),
    ("isaac3d", r"isaac"),
    ("brecahad", r"brecahad"),
    ("cifar10", r"cifar"),
    ("anime", r"anime"),
    ("car", r"(?<![a-z])cars?(?![a-z])"),
    ("cat", r"(?<![a-z])cats?(?![a-z])"),
    ("dog", r"(?<![a-z])dogs?(?![a-z])"),
    ("horse", r"(?<![a-z])horses?(?![a-z])"),
    ("church", r"church"),
    ("bird", r"(?<![a-z])(birds?|cub)(?![a-z])"),
)


@dataclass(frozen=True)
class CanonicalGenerator:
    """A generator file, whatever it was, as canonical tensors. The file's own tensors are not referenced."""

    architecture: str
    """ "stylegan2" or "mobile_stylegan"."""
    state: dict[str, Tensor]
    """float32, contiguous, CPU."""
    config: StyleGAN2Config | None
    """None for MobileStyleGAN, whose tensors say everything."""
    family: str
    source_format: str
    """For people: which reader read it."""

    def __post_init__(self) -> None:
        for name, tensor in self.state.items():
            if not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(
                    f"The weights hold NaN or infinity, first in {name}: the training that wrote the file had failed, "
                    "or the file is damaged. Use an earlier snapshot, or download it again."
                )


def stylegan2_generator(
    state: Mapping[str, Tensor], config: StyleGAN2Config, *, source_format: str, hints: tuple[str, ...]
) -> CanonicalGenerator:
    """Check a StyleGAN2 state and put it into canonical form; a missing mean w is estimated.

    Args:
        hints: texts that may name the data set (file name, training path), the most telling first.
    Raises:
        CheckpointError: a tensor is missing, misshapen or not finite.
    """
    state = dict(state)
    try:
        needs_mean = "mapping.w_avg" not in state
        if needs_mean:
            state["mapping.w_avg"] = torch.zeros(config.w_dim)
        check_state(state, config)
        names = [name for name in expected_shapes(config, channels_of(state, config)) if name in state]
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    canonical = {name: state[name].detach().float().contiguous() for name in names}
    if needs_mean:
        canonical["mapping.w_avg"] = estimate_w_avg(canonical, config)
    family = f"stylegan2-{dataset_of(hints)}-{config.resolution}x{config.num_ws}"
    return CanonicalGenerator("stylegan2", canonical, config, family, source_format)


def estimate_w_avg(state: Mapping[str, Tensor], config: StyleGAN2Config) -> Tensor:
    """`(D,)` mean of the mapping network over seeded normal samples (and all classes in turn)."""
    mapping = MappingNetwork(config.z_dim, config.c_dim, config.w_dim, config.mapping_layers, config.mapping_lr)
    mapping.load_state_dict({name[8:]: tensor for name, tensor in state.items() if name.startswith("mapping.")})
    z = torch.randn(W_AVG_SAMPLES, config.z_dim, generator=torch.Generator().manual_seed(0))
    label = None
    if config.c_dim:
        label = torch.nn.functional.one_hot(torch.arange(W_AVG_SAMPLES) % config.c_dim, config.c_dim).float()
    with torch.no_grad():
        return mapping(z, label).mean(dim=0)


def dataset_of(hints: tuple[str, ...]) -> str:
    """The data set that the first telling hint names, e.g. "ffhq"; "unknown" if none does."""
    for hint in hints:
        for name, pattern in _DATASETS:
            if re.search(pattern, hint.lower()):
                return name
    return "unknown"


def file_hint(path: Path) -> str:
    """The part of a path that people put meaning into: folder and file name."""
    return f"{path.parent.name}/{path.name}"
