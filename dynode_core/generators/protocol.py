"""What every generator offers to the rest of the pack."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Generator(Protocol):
    """A frozen image generator driven by W+ codes. L = `num_ws`, D = `w_dim`, R = `resolution`.

    Implementations are `torch.nn.Module`s in eval mode whose parameters do not require gradients.
    """

    num_ws: int
    """Rows of a W+ code (18 for StyleGAN2 at 1024, 23 for MobileStyleGAN at 1024)."""
    w_dim: int
    z_dim: int
    resolution: int
    family: str
    """Which codes fit, e.g. "mobile_stylegan-ffhq-1024" or "stylegan2-1024x18": codes and directions carry it."""
    generator_id: str
    """SHA-256 prefix of the weights: caches and files carry it."""
    w_avg: Tensor
    """`(D,)` float32, the mean w."""

    @property
    def device(self) -> torch.device: ...

    def map(self, z: Tensor, *, truncation_psi: float = 1.0) -> Tensor:
        """`(N, z_dim)` normal samples to `(N, L, D)` W+ codes with equal rows."""
        ...

    def synthesize(self, w_plus: Tensor, *, size: int | None = None) -> Tensor:
        """`(N, L, D)` codes to `(N, 3, S, S)` images in about [-1, 1], differentiable in `w_plus`.

        S = `size` (a power of two, at most R) or R: smaller sizes are the R picture averaged over blocks.
        """
        ...


@runtime_checkable
class Compilable(Protocol):
    """A generator that torch.compile can make faster."""

    def compile_synthesis(self, **options: Any) -> None:
        """Use torch.compile from the next picture on, where it works; `options` are those of `torch.compile`."""
        ...
