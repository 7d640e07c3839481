"""How close one reconstructed face is to its frame, by everything that can be measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..faces.landmarks import Face, FaceLandmarker
from ..inversion.code_space import CodeSpace
from ..inversion.perceptual import PerceptualDistance
from ..layout import network_to_bytes, network_to_pictures
from .editability import PROBES
from .identity import IdentityEmbedder
from .reconstruction import mean_square_error, structural_similarity

NAN = float("nan")
KEYFRAME, BETWEEN = "keyframe", "between"


@dataclass(frozen=True)
class Instruments:
    """What measures; None leaves its columns empty."""

    perceptual: PerceptualDistance | None = None
    identity: IdentityEmbedder | None = None
    """Not the embedder that inversion optimised: it would praise itself."""
    landmarker: FaceLandmarker | None = None

    def face(self, picture: np.ndarray) -> Face | None:
        """The largest face in `(S, S, 3)` uint8, or None."""
        found = [] if self.landmarker is None else self.landmarker.detect(picture)
        return found[0] if found else None

    def same_person(self, a: np.ndarray, face_a: Face | None, b: np.ndarray, face_b: Face | None) -> float:
        """Cosine of the faces in two pictures; NaN without an embedder or a face."""
        if self.identity is None or face_a is None or face_b is None:
            return NAN
        return float(self.identity.embed(a, face_a.landmarks) @ self.identity.embed(b, face_b.landmarks))


@dataclass(frozen=True)
class FrameQuality:
    """One frame. What was not measured is NaN."""

    frame: int
    time_s: float
    kind: str
    """`KEYFRAME` or `BETWEEN`."""
    mse: float
    """Pixels in [0, 1]."""
    ssim: float
    perceptual: float = NAN
    identity: float = NAN
    blendshapes: float = NAN
    """Mean absolute error of the 52 blendshapes."""
    mouth: float = NAN
    eyes: float = NAN
    smile: float = NAN
    """Absolute errors of jawOpen, eyeBlink and mouthSmile."""
    pose_deg: float = NAN
    """Mean absolute error of yaw, pitch and roll."""
    from_mean: float = NAN
    """Size of the code in standard deviations of the generator's own codes, which have about 1."""
    row_spread: float = NAN
    """How far the rows of the code differ, in the same unit; sampled codes have 0."""
    editability: float = NAN
    """In [0, 1]: see `editability`."""


COLUMNS = tuple(name for name in FrameQuality.__dataclass_fields__ if name not in ("frame", "time_s", "kind"))
LOW_IS_GOOD = frozenset(COLUMNS) - {"ssim", "identity", "editability"}


@dataclass(frozen=True)
class Pair:
    """A frame and its reconstruction, seen by the landmarker once."""

    crop: Tensor
    """`(1, 3, S, S)` in [-1, 1]."""
    image: Tensor
    crop_bytes: np.ndarray
    """`(S, S, 3)` uint8."""
    image_bytes: np.ndarray
    crop_face: Face | None
    image_face: Face | None

    @property
    def landmark_error(self) -> np.ndarray | None:
        """`(P, 2)` displacement of the landmarks from clip to reconstruction, in sides of the crop."""
        if self.crop_face is None or self.image_face is None:
            return None
        return (self.image_face.landmarks - self.crop_face.landmarks) / self.crop.shape[-1]


def look_at(crop: Tensor, image: Tensor, instruments: Instruments) -> Pair:
    """Find the faces in a frame and in its reconstruction, both `(1, 3, S, S)` in about [-1, 1]."""
    a, b = network_to_bytes(crop)[0], network_to_bytes(image)[0]
    return Pair(crop, image, a, b, instruments.face(a), instruments.face(b))


@torch.no_grad()
def measure_pair(pair: Pair, instruments: Instruments) -> dict[str, float]:
    """The columns that two pictures tell."""
    found, wanted = (network_to_pictures(x).permute(0, 3, 1, 2) for x in (pair.image, pair.crop))
    values = {
        "mse": float(mean_square_error(found, wanted)),
        "ssim": float(structural_similarity(found, wanted)),
        "identity": instruments.same_person(pair.crop_bytes, pair.crop_face, pair.image_bytes, pair.image_face),
    }
    if instruments.perceptual is not None:
        device = instruments.perceptual.shift.device
        values["perceptual"] = float(
            instruments.perceptual(pair.image.clamp(-1, 1).to(device), pair.crop.to(device)).cpu()
        )
    return values | _expression_errors(pair.crop_face, pair.image_face)


def _expression_errors(wanted: Face | None, found: Face | None) -> dict[str, float]:
    if wanted is None or found is None or wanted.blendshapes is None or found.blendshapes is None:
        return {}
    shapes, others = wanted.blendshapes, found.blendshapes
    errors = {
        column: float(abs(shapes[list(PROBES[name])].mean() - others[list(PROBES[name])].mean()))
        for column, name in (("mouth", "mouth open"), ("eyes", "eyes closed"), ("smile", "smile"))
    }
    errors["blendshapes"] = float(np.abs(shapes - others).mean())
    if wanted.pose_deg is not None and found.pose_deg is not None:
        errors["pose_deg"] = float(np.abs(wanted.pose_deg - found.pose_deg).mean())
    return errors


def measure_code(code: Tensor, space: CodeSpace) -> dict[str, float]:
    """The columns that one `(L, D)` code tells."""
    coordinates = space.encode(code.to(space.w_avg))
    spread = coordinates - coordinates.mean(dim=0, keepdim=True)
    return {
        "from_mean": float(coordinates.square().mean().sqrt()),
        "row_spread": float(spread.square().mean().sqrt()),
    }
