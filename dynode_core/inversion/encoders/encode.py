"""Pictures to W+ codes with an encoder and the mean w that it was trained with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check_shape
from ...families import row_map
from ...generators.protocol import Generator
from .networks import INPUT_SIZE, SINGLE_SCALE_KINDS, EncoderNetwork

RESTYLE_STEPS = 5


class StyleEncoder(nn.Module):
    """An encoder file, ready to use.

    Args:
        network: the encoder network.
        latent_avg: `(L, D)` mean code that the network's output is relative to; None if it is absolute.
        family: the family of codes it writes, e.g. "stylegan2-ffhq-1024x18".
        encoder_id: hash of the weights.
    """

    latent_avg: Tensor | None

    def __init__(self, network: EncoderNetwork, latent_avg: Tensor | None, *, family: str, encoder_id: str) -> None:
        super().__init__()
        if latent_avg is not None:
            check_shape("latent_avg", latent_avg, (network.num_rows, network.w_dim))
        self.network, self.family, self.encoder_id = network, family, encoder_id
        self.register_buffer("latent_avg", latent_avg)
        self.eval()

    @property
    def num_ws(self) -> int:
        """Rows of the codes it writes."""
        return self.network.num_rows

    @property
    def is_iterative(self) -> bool:
        """Whether it refines its codes with pictures of the generator (ReStyle)."""
        return self.network.kind in SINGLE_SCALE_KINDS

    @torch.no_grad()
    def encode(self, faces: Tensor, generator: Generator | None = None, *, steps: int = RESTYLE_STEPS) -> Tensor:
        """`(N, 3, S, S)` aligned pictures in [-1, 1] to `(N, L, D)` float32 W+ codes.

        Args:
            generator: the generator the encoder was trained for, or one that `rows_for` knows; only ReStyle encoders
                need it.
            steps: refinements of a ReStyle encoder, one rendering each.
        Raises:
            ValueError: no generator where one is needed, or one with other codes.
        """
        check_shape("faces", faces, ("N", 3, "S", "S"))
        faces = _resized(faces.float())
        mean = 0.0 if self.latent_avg is None else self.latent_avg[None]
        if not self.is_iterative:
            return self.network(faces) + mean
        if generator is None:
            raise ValueError("A ReStyle encoder compares with pictures of its generator: connect the generator too.")
        rows = list(self.rows_for(generator))
        start = self.latent_avg if self.latent_avg is not None else generator.w_avg.expand(self.num_ws, -1)
        codes = start[None].repeat(len(faces), 1, 1)
        shown = _resized(generator.synthesize(codes[:1, rows])).expand(len(faces), -1, -1, -1)
        for step in range(steps):
            codes = codes + self.network(torch.cat([faces, shown], dim=1))
            if step + 1 < steps:
                shown = _resized(generator.synthesize(codes[:, rows]))
        return codes

    def rows_for(self, generator: Generator) -> tuple[int, ...]:
        """For each row of the generator's codes the row of this encoder's codes that does the same.

        They are equal for the generator that the encoder was trained for, and mapped for a MobileStyleGAN that was
        distilled from it (see `families.row_map`).

        Raises:
            ValueError: a generator with other codes.
        """
        if (generator.num_ws, generator.w_dim) == (self.num_ws, self.network.w_dim):
            return tuple(range(self.num_ws))
        rows = row_map(self.family, generator.family) if generator.w_dim == self.network.w_dim else None
        if rows is None:
            raise ValueError(
                f"The encoder writes codes of {self.num_ws} x {self.network.w_dim}, but the generator takes "
                f"{generator.num_ws} x {generator.w_dim} ({self.family} and {generator.family}). Use the generator "
                "that the encoder was trained for."
            )
        return rows


def _resized(images: Tensor) -> Tensor:
    """`(N, 3, S, S)` at the input size of encoders: averaged down, or pixels repeated, as the originals do."""
    return images if images.shape[-1] == INPUT_SIZE else F.adaptive_avg_pool2d(images, INPUT_SIZE)
