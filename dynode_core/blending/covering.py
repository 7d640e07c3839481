"""What is in front of the face or beside it, as a segmentation model sees it: it stays as it is in the clip."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..faces.crop import crop
from ..faces.masks import REGIONS
from ..layout import network_to_bytes
from .crop_space import blur
from .occluders import SIDE
from .region import FaceRegion
from .settings import WHOLE_CROP

_SEEN_AT = 256
"""Side of the crop that is handed to the model, pixels: what mediapipe's selfie models see."""
_EDGE_BLUR = 1.0
_COVERS = {
    "background": frozenset(),
    "hair": frozenset({"hair"}),
    "hat": frozenset({"hair"}),
    "body": frozenset({"neck"}),
    "neck": frozenset({"neck"}),
    "hand": frozenset(),
    "cloth": frozenset(),
}
"""Words in the names of parts that are not the face, and the parts of a region (see `REGIONS`) that ask for them."""
_ALSO_IN_WHOLE_CROP = frozenset({"hair", "hat", "body", "neck", "cloth"})


class PartFinder(Protocol):
    """Anything that tells the parts of a picture, such as `faces.segmenter.FaceSegmenter`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the parts; empty where they have none."""
        ...

    def parts(self, picture: np.ndarray) -> np.ndarray:
        """`(C, H, W)` float32 in [0, 1] of an `(H, W, 3)` uint8 picture."""
        ...


def find_covered(frame: Tensor, region: FaceRegion, finder: PartFinder, region_name: str) -> Tensor:
    """How much of the crop is not the face that was asked for: hair, a hand, clothes, background.

    Args:
        frame: `(H, W, 3)` float32 in [0, 1].
        region: where the face goes.
        finder: tells the parts of the crop.
        region_name: one of `REGIONS` or "whole crop". A region that holds the hair or the neck gives those free.

    Returns:
        `(1, SIDE, SIDE)` in [0, 1] in crop coordinates: 1 where the clip stays as it is.

    Raises:
        ValueError: no part of this model can cover a face.
    """
    picture = network_to_bytes(crop(frame[None], region.quad[None], _SEEN_AT))[0]
    parts = torch.from_numpy(finder.parts(picture))
    if len(parts) == 1:  # a mask of the person
        covered = 1 - parts[0]
    else:
        chosen = covering_parts(finder.labels or default_labels(len(parts)), region_name)
        covered = parts[chosen].sum(dim=0)
    small = torch.nn.functional.interpolate(covered[None, None], (SIDE, SIDE), mode="bilinear", antialias=True)[0]
    return blur(small, _EDGE_BLUR).clamp(0, 1)


def default_labels(count: int) -> tuple[str, ...]:
    """Names for a model that has none: two parts are background and person, as in mediapipe's own models."""
    return ("background", *(f"part {i}" for i in range(1, count)))


def covering_parts(labels: tuple[str, ...], region_name: str) -> list[int]:
    """Numbers of the parts that stay as they are for a region, by the words in their names.

    Raises:
        ValueError: there are none in any region.
    """
    wanted = REGIONS.get(region_name, frozenset())
    free = _ALSO_IN_WHOLE_CROP if region_name == WHOLE_CROP else {w for w, parts in _COVERS.items() if parts & wanted}
    words = [{word for word in _COVERS if word in label.lower()} for label in labels]
    if not any(words):
        raise ValueError(
            f"This segmentation model knows {', '.join(labels)}, none of which can be in front of a face. "
            "Use one that knows the background, hair or clothes, or choose none."
        )
    return [i for i, found in enumerate(words) if found - free]
