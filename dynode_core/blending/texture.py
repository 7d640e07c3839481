"""What an edited picture shows and the generator cannot draw, made into a texture for the mesh of the face (ours).

The texture completes the rendered face, and its counterpart completes the rendered face without the edit. So every mode
of `blend_clip` gives the edited picture back at the frame it was made for: in the mode "residual", which adds what the
edit changes to the source, the detail of the source goes out where the picture covers it.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..types import FaceTexture
from .crop_space import blur, blur_counting, shrink_face

_LIGHT_SIDE = 96
_LIGHT_BLUR = 0.06
_LARGEST_LIGHT = 0.3
"""As in `colour.light_offset`, which adds this light to rendered faces."""
_UNMET_BLUR = 0.012
_MET, _UNMET = 0.01, 0.035
"""Up to this error, in [-1, 1] units, the generator has done what the picture asks; from the second on the texture does
it alone."""


def make_texture(
    source: Tensor,
    painted: Tensor,
    base: Tensor,
    edited: Tensor,
    changed: Tensor,
    landmarks: np.ndarray,
    frame_index: int = 0,
) -> FaceTexture:
    """The texture that completes `edited` to `painted`.

    Args:
        source, painted: `(3, S, S)` in [-1, 1]: the crop of the frame before and after it was edited.
        base, edited: `(3, S, S)` in about [-1, 1]: what the generator makes of the code before and after.
        changed: `(1, S, S)` in [0, 1]: where the picture was edited.
        landmarks: `(P, 2)` of the frame, in units of the crop's side.
    """
    base, edited = base.clamp(-1, 1), edited.clamp(-1, 1)
    light = light_of(source, base)
    goal = source + changed * (painted - source)
    return FaceTexture(
        shown=goal - edited - light,
        detail=source - base - light,
        alpha=changed * unmet_share(goal - source, edited - base),
        landmarks=landmarks,
        frame_index=frame_index,
    )


def unmet_share(asked: Tensor, done: Tensor) -> Tensor:
    """`(1, S, S)` in [0, 1]: where the change `(3, S, S)` that was asked for differs from the one that was done."""
    error = (asked - done).square().mean(dim=0, keepdim=True)
    rms = blur(error, max(0.5, _UNMET_BLUR * error.shape[-1])).sqrt()
    share = ((rms - _MET) / (_UNMET - _MET)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def light_of(source: Tensor, base: Tensor) -> Tensor:
    """`(3, S, S)` low frequencies in which the source differs from its reconstruction."""
    offset = shrink_face(source, _LIGHT_SIDE) - shrink_face(base, _LIGHT_SIDE)
    offset = offset.clamp(-_LARGEST_LIGHT, _LARGEST_LIGHT)
    smooth = blur_counting(offset, offset.new_ones(1, _LIGHT_SIDE, _LIGHT_SIDE), _LIGHT_BLUR * _LIGHT_SIDE)
    return F.interpolate(smooth[None], source.shape[1:], mode="bilinear", align_corners=False)[0]
