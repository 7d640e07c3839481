"""The sharpness of the source carried over to a rendered face.

A face returns softer than the frame around it, and the smaller it is, the more. On a face whose crop has 85 px of the
frame a side, cutting it out and putting it back, without any generator, leaves 68 % of the finest band of detail (RMS
of what a Gaussian of 0.7 px takes away), and a generated face 65 %: sampling between pixels is to blame.

So detail that the edit leaves alone is taken from the source, and the bands of the rest get the strength that they have
there. Both look at the reconstruction without the edit, where there is one: what the edit draws is not held against it.

Measured with a generator and smile=3, RMS of the finest band in 8-bit levels in source / made face / made face with
this: crop of 85 px 4.04 / 2.57 / 3.66; 421 px 1.00 / 0.77 / 0.84; 395 px, where the generator draws more than there is,
0.87 / 1.36 / 0.92. Warp error (see `benchmarks/blend.py`) over the source's without / with this: 1.03 / 1.12, 1.67 /
1.66, 1.87 / 1.51. (Mode "residual" on the first: 1.20. It is the edited face itself that flickers.) Of the 8 % on the
first, 3 are the clip's own detail, which trembles as the clip does, and 5 what the edit draws, made stronger. Gains or
shares that follow more slowly, gains held to the change from frame to frame in the source, less gain on strong edges:
each took away as much sharpness as flicker.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .crop_space import blur, box_to_crop
from .grain import grain_deviation
from .region import FaceRegion

SIGMAS_PX = (0.7, 1.4, 2.8)
"""Bands of detail: finer than the first Gaussian, between the first and the second, and so on."""
LEAST_GAIN, MOST_GAIN = 0.7, 1.6
_NOTHING = (0.5 / 255) ** 2
"""Variance of a band below which there is nothing to compare."""
_UNSURE_GRAIN = 0.1
"""So much of the grain may be taken for detail, or detail for grain."""
_FEWEST_PX = 64
KEPT_SIDE = 96
_KEPT_BLUR = 2.5
_SAME, _OTHER = 0.08, 0.35
"""Variance of the change of detail, in shares of the detail's own, up to which it is the same and from which it is
not."""
_OWN, _FOREIGN = 4.0, 9.0
"""Variance of what the reconstruction lacks, in shares of its own detail, up to which it is the same face drawn sharper
and from which it is something else: the edge of a hand, the rim of glasses."""
_UNSEEN = (1.5 / 255) ** 2
"""Variance of a change of detail that nobody sees."""
_STRAY, _STRAY_SEEN = 0.7, 0.95
"""Share of the source's detail that is no multiple of the reconstruction's, up to which both show the same features and
from which they do not, such as the lip of a shout beside that of a smile ..."""
_FAINT, _PLAIN = (4 / 255) ** 2, (7 / 255) ** 2
"""... and its variance up to which it is but the texture of skin and from which it is a line that is seen."""


@dataclass(frozen=True)
class Detail:
    """The fine detail of a picture, in luma."""

    bands: Tensor
    """`(B, h, w)` for `SIGMAS_PX`."""
    grain: float
    """Standard deviation of the noise in it (see `grain_deviation`)."""


def detail_of(luma: Tensor, mask: Tensor) -> Detail:
    """The detail of an `(h, w)` picture in [0, 1]; its grain is measured where the `(h, w)` mask is above 0.5."""
    return Detail(_bands(luma), grain_deviation(luma, mask))


def detail_gains(source: Detail, made: Detail, mask: Tensor) -> Tensor:
    """By how much each band of `made` is to be multiplied to be as strong as in `source`.

    Grain is taken off both before they are compared: it is no reason to sharpen a face.

    Args:
        source, made: detail over the same pixels.
        mask: `(h, w)`: where it is above 0.5 they are compared.

    Returns:
        `(B,)` in [LEAST_GAIN, MOST_GAIN]; 1 where there is too little to compare.
    """
    inside = mask > 0.5
    if int(inside.sum()) < _FEWEST_PX:
        return torch.ones(len(SIGMAS_PX))
    wanted, present = (_variances(detail, inside) for detail in (source, made))
    unsure = _NOTHING + _UNSURE_GRAIN * (source.grain**2 + made.grain**2) * _white_noise_variances()
    return ((wanted + unsure) / (present + unsure)).sqrt().clamp(LEAST_GAIN, MOST_GAIN)


def kept_detail(source: Detail, edited: Detail, base: Detail, region: FaceRegion) -> Tensor:
    """Where an edit leaves the detail of the source's face as it is: `(1, KEPT_SIDE, KEPT_SIDE)` in [0, 1] in crop
    coordinates.

    Args:
        source: of the frame.
        edited, base: of the rendered face with and without the edit. All over the region's box.
        region: where.
    """
    cross = (source.bands * base.bands).sum(dim=0)
    energies = [_energy(bands) for bands in (edited.bands - base.bands, edited.bands, base.bands, source.bands)]
    small = blur(box_to_crop(torch.stack([*energies, cross, torch.ones_like(cross)]), region, KEPT_SIDE), _KEPT_BLUR)
    change, of_edited, of_base, of_source, cross, weight = small
    weight = weight.clamp_min(1e-3)
    floor = _UNSEEN * weight
    grain = source.grain**2 * float(_white_noise_variances().sum()) * weight
    same = _ramp(change / ((of_edited + of_base) / 2 + floor), _SAME, _OTHER)
    lacking = of_source + of_base - 2 * cross
    own = _ramp(lacking / (of_base + floor + grain), _OWN, _FOREIGN)
    stray = (of_source - grain - cross.clamp_min(0).square() / (of_base + _NOTHING * weight)).clamp_min(0)
    elsewhere = 1 - _ramp(stray / (of_source + _NOTHING * weight), _STRAY, _STRAY_SEEN)
    seen = 1 - _ramp(stray / weight, _FAINT, _PLAIN)
    return (same * own * (1 - elsewhere * seen))[None]


def added_detail(edited: Detail, gains: Tensor, lost: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
    """`(h, w, 1)` to be added to the rendered face.

    Args:
        edited: its detail.
        gains: `(B,)` for its bands.
        lost: `(B, h, w)`: by how much the source has more than the reconstruction, or None.
        kept: `(h, w)` in [0, 1]: where that is to be added instead of multiplying.
    """
    more = ((gains - 1)[:, None, None] * edited.bands).sum(dim=0)
    if lost is not None and kept is not None:
        more = torch.lerp(more, lost.sum(dim=0), kept)
    return more[..., None]


def _ramp(values: Tensor, low: float, high: float) -> Tensor:
    """1 up to `low`, smoothly 0 from `high`."""
    share = ((high - values) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _energy(bands: Tensor) -> Tensor:
    """`(h, w)` sum of the squares of `(B, h, w)`."""
    total = bands[0].square()
    for band in bands[1:]:
        total.addcmul_(band, band)
    return total


def _variances(detail: Detail, inside: Tensor) -> Tensor:
    """`(B,)` mean squares of the bands without the grain."""
    weight = inside.flatten().float()
    raw = detail.bands.flatten(1).square() @ weight / weight.sum()
    return (raw - detail.grain**2 * _white_noise_variances()).clamp_min(0)


def _bands(luma: Tensor) -> Tensor:
    """`(B, h, w)` differences between `(h, w)` and its Gaussians."""
    import cv2

    level = luma.contiguous().numpy()
    bands = np.empty((len(SIGMAS_PX), *level.shape), dtype=np.float32)
    for band, sigma in zip(bands, SIGMAS_PX, strict=True):
        smoother = cv2.GaussianBlur(level, (0, 0), sigma)
        np.subtract(level, smoother, out=band)
        level = smoother
    return torch.from_numpy(bands)


@functools.cache
def _white_noise_variances() -> Tensor:
    """`(B,)` what white noise of variance 1 leaves in each band."""
    spike = torch.zeros(65, 65)
    spike[32, 32] = 1
    return _bands(spike).square().sum(dim=(1, 2))
