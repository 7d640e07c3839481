"""Seeds to W+ codes of generated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .protocol import Generator

LARGEST_SEED = 2**32 - 1


@torch.no_grad()
def sample_codes(
    generator: Generator,
    seeds: Sequence[int],
    *,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    class_index: int = 0,
) -> Tensor:
    """The codes of seeds: each seed is a picture of its own, whatever is sampled beside it.

    z is drawn as NVIDIA's scripts do (NumPy's legacy generator, one per seed): the same seed gives the same picture.

    Args:
        generator: on any device.
        seeds: from 0 to 2**32 - 1.
        truncation_psi: 1 keeps w, 0 gives the mean w, in between pictures become more usual and cleaner.
        truncation_cutoff: only the first so many rows are truncated; None means all.
        class_index: which class, for generators that were trained with classes; others take only 0.
    Returns:
        `(N, L, D)` float32, CPU.
    Raises:
        ValueError: no seeds, a seed, cutoff or class outside its range.
    """
    if not seeds or not all(0 <= seed <= LARGEST_SEED for seed in seeds):
        raise ValueError(f"Seeds should be whole numbers from 0 to {LARGEST_SEED}, but are {list(seeds)}.")
    cutoff = generator.num_ws if truncation_cutoff is None else truncation_cutoff
    if not 0 <= cutoff <= generator.num_ws:
        raise ValueError(f"truncation_cutoff should be 0 to {generator.num_ws} rows, but is {cutoff}.")
    z = np.stack([np.random.RandomState(seed).standard_normal(generator.z_dim) for seed in seeds])
    z_on_device = torch.from_numpy(z).float().to(generator.device)
    w_plus = generator.map(z_on_device, **_label(generator, class_index, len(seeds))).float()
    truncated = generator.w_avg.lerp(w_plus[:, :cutoff], truncation_psi)
    return torch.cat([truncated, w_plus[:, cutoff:]], dim=1).cpu()


def num_classes(generator: Generator) -> int:
    """Classes that a generator was trained with; 0 if without."""
    return int(getattr(getattr(generator, "config", None), "c_dim", 0))


def _label(generator: Generator, class_index: int, count: int) -> dict[str, Any]:
    """What `map` takes besides z."""
    classes = num_classes(generator)
    if not 0 <= class_index < max(1, classes):
        what = f"{classes} classes, 0 to {classes - 1}" if classes else "no classes: leave it at 0"
        raise ValueError(f"class_index is {class_index}, but this generator has {what}.")
    if not classes:
        return {}
    index = torch.full((count,), class_index, device=generator.device)
    return {"label": F.one_hot(index, classes).float()}
