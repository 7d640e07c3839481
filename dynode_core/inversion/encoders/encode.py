"""Pictures to W+ codes with an encoder and the mean w that it was trained with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check_shape
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
        """`(N, 3, S, S)` aligned pictures in [-1, 1], S >= 256, to `(N, L, D)` float32 W+ codes.

        Args:
            generator: the generator the encoder was trained for; only ReStyle encoders need it.
            steps: refinements of a ReStyle encoder, one rendering each.
        Raises:
            ValueError: no generator where one is needed, or one with other codes.
        """
        check_shape("faces", faces, ("N", 3, "S", "S"))
        faces = _shrunk(faces.float())
        mean = 0.0 if self.latent_avg is None else self.latent_avg[None]
        if not self.is_iterative:
            return self.network(faces) + mean
        generator = self._checked(generator)
        start = self.latent_avg if self.latent_avg is not None else generator.w_avg.expand(self.num_ws, -1)
        codes = start[None].repeat(len(faces), 1, 1)
        shown = _shrunk(generator.synthesize(codes[:1])).expand(len(faces), -1, -1, -1)
        for step in range(steps):
            codes = codes + self.network(torch.cat([faces, shown], dim=1))
            if step + 1 < steps:
                shown = _shrunk(generator.synthesize(codes))
        return codes

    def _checked(self, generator: Generator | None) -> Generator:
        if generator is None:
            raise ValueError("A ReStyle encoder compares with pictures of its generator: connect the generator too.")
        if (generator.num_ws, generator.w_dim) != (self.num_ws, self.network.w_dim):
            raise ValueError(
                f"The encoder writes codes of {self.num_ws} x {self.network.w_dim}, but the generator takes "
                f"{generator.num_ws} x {generator.w_dim}. Use the generator that the encoder was trained for."
            )
        return generator


def _shrunk(images: Tensor) -> Tensor:
    """`(N, 3, S, S)` averaged down to the input size of encoders."""
    return images if images.shape[-1] == INPUT_SIZE else F.adaptive_avg_pool2d(images, INPUT_SIZE)
