"""Where the search for a code starts: at the guess of an encoder or of the fit on thumbnails, or at the mean code."""

from __future__ import annotations

import torch
from torch import Tensor

from ..generators.protocol import Generator
from .encoders import StyleEncoder
from .thumbnail_encoder import load_thumbnail_encoder


class FirstGuess:
    """Faces to codes of one generator.

    Args:
        generator: whose codes.
        encoder: e4e, pSp or ReStyle, on the generator's device; None takes the fit that ships for the generator's
            family, or w_avg where there is none.
    Raises:
        ValueError: the encoder writes codes of another generator.
    """

    def __init__(self, generator: Generator, encoder: StyleEncoder | None = None) -> None:
        self._generator, self._encoder = generator, encoder
        self._rows = None if encoder is None else list(encoder.rows_for(generator))
        self._thumbnails = load_thumbnail_encoder(generator.family) if encoder is None else None

    @property
    def guess_id(self) -> str:
        """For cache keys."""
        return "" if self._encoder is None else self._encoder.encoder_id

    @property
    def sees_expressions(self) -> bool:
        """Whether guesses open the mouth where the picture does: thumbnails tell little of that."""
        return self._encoder is not None

    @torch.no_grad()
    def __call__(self, face: Tensor) -> Tensor:
        """`(1, 3, S, S)` in [-1, 1] to `(1, L, D)` float32, on the generator's device."""
        generator = self._generator
        if self._encoder is not None:
            return self._encoder.encode(face.to(generator.device), generator)[:, self._rows]
        w = generator.w_avg[None] if self._thumbnails is None else self._thumbnails(face.cpu()).to(generator.device)
        return w[:, None].expand(-1, generator.num_ws, -1)
