"""Where the search for a code starts: at the guess of an encoder, or at the mean code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..generators.protocol import Generator
from ..types import AlignedClip
from .encoders import StyleEncoder
from .expression_shift import BLENDSHAPES
from .face_encoder import LOOKS_THROUGH, expression_of, look_at, shipped_face_encoder
from .identity_loss import IdentityNetwork
from .perceptual import PerceptualDistance
from .thumbnail_encoder import load_thumbnail_encoder

Guess = Callable[[Tensor, int], Tensor]
"""`(1, 3, S, S)` in [-1, 1] and the number of the frame that it shows, to `(1, L, D)` float32 on the same device."""


@dataclass(frozen=True)
class FirstGuess:
    """Frames of one clip to codes of one generator."""

    name: str
    """For reports and cache keys."""
    shifts: Mapping[str, float]
    """How much of each part of `expression_shift` is wanted on top: all where guesses come from thumbnails, which tell
    little of expressions; half of the smile for the face encoder, which sees open mouths and closed eyes of real faces
    but smiles less well (errors .039, .050 and .189); nothing for encoders of the user. With half of all three screams
    started beyond what the generator can draw, and where the search ended was a matter of rounding: 4 s with screams
    and grins, 20 keyframes, the same settings on one and on two threads: error of jawOpen between keyframes .06 and
    .14, the second with torn mouths."""
    code_of: Guess


def first_guess(
    aligned: AlignedClip,
    generator: Generator,
    encoder: StyleEncoder | None = None,
    *,
    perceptual: PerceptualDistance | None = None,
    identity: IdentityNetwork | None = None,
) -> FirstGuess:
    """The best guess that there is for a clip.

    Args:
        encoder: e4e, pSp or ReStyle, on the generator's device. None takes what ships for the generator's family: the
            face encoder where its two networks are there and frames have blendshapes and pose, else the fit on
            thumbnails. For other families it is w_avg.
        perceptual, identity: what the face encoder looks through, on the generator's device.
    Raises:
        ValueError: the encoder writes codes of another generator.
    """
    if encoder is not None:
        name = f"{encoder.network.kind} {encoder.encoder_id}"
        return FirstGuess(name, {}, _by_encoder(encoder, generator))
    by_looks = _by_looks(aligned, generator, perceptual, identity)
    if by_looks is not None:
        return FirstGuess("face encoder", {"smile": 0.5}, by_looks)
    return FirstGuess("thumbnail", dict.fromkeys(BLENDSHAPES, 1.0), _by_thumbnail(generator))


def _by_encoder(encoder: StyleEncoder, generator: Generator) -> Guess:
    rows = list(encoder.rows_for(generator))
    return lambda face, frame: encoder.encode(face, generator)[:, rows]


def _by_looks(
    aligned: AlignedClip,
    generator: Generator,
    perceptual: PerceptualDistance | None,
    identity: IdentityNetwork | None,
) -> Guess | None:
    """None where something is missing that the face encoder needs."""
    track = aligned.track
    if perceptual is None or identity is None or (perceptual.name, identity.name) != LOOKS_THROUGH:
        return None
    if track.blendshapes is None or track.pose_deg is None:
        return None
    encoder = shipped_face_encoder(generator.family)
    if encoder is None:
        return None
    encoder, expressions = encoder.to(generator.device), expression_of(track.blendshapes, track.pose_deg)
    return lambda face, frame: encoder(look_at(face, expressions[frame : frame + 1], perceptual, identity))


def _by_thumbnail(generator: Generator) -> Guess:
    encoder = load_thumbnail_encoder(generator.family)

    def code_of(face: Tensor, frame: int) -> Tensor:
        w = generator.w_avg[None] if encoder is None else encoder(face.cpu()).to(generator.device)
        return w[:, None].expand(-1, generator.num_ws, -1)

    return code_of
