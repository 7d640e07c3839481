"""One finished frame after another, with the little that has to be remembered between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..layout import LUMA
from .colour import light_offset, offset_at_edge
from .composite import add_change, edit_activity, residual_change, warp_into
from .covering import PartFinder, find_covered
from .detail import added_detail, detail_gains, detail_of, kept_detail
from .grain import grain_deviation, make_grain
from .joins import feathered, membrane, multiband
from .occluders import find_occluders
from .region import FaceRegion
from .settings import BlendSettings

_MEMBRANE_TIME_S = 0.08
_OCCLUDER_TIME_S = 0.05
_ACTIVITY_TIME_S = 0.1
_GRAIN_TIME_S = 0.5
_GAINS_TIME_S = 0.5
_KEPT_TIME_S = 0.3


class SlowValue:
    """An exponential average over time (first order low-pass). Jumps of time and of value start it anew.

    Args:
        time_constant_s: after this long a step has come through to 63 %.
        jump: a mean difference larger than this is a new scene, not a change.
    """

    def __init__(self, time_constant_s: float, jump: float) -> None:
        self._time_constant_s, self._jump = time_constant_s, jump
        self._value: Tensor | None = None
        self._time_s = 0.0

    def follow(self, value: Tensor, time_s: float) -> Tensor:
        """The average after `value` arrived at `time_s`."""
        passed_s = time_s - self._time_s
        if (
            self._value is not None
            and 0 <= passed_s < 6 * self._time_constant_s
            and float((value - self._value).abs().mean()) < self._jump
        ):
            value = self._value + (1 - np.exp(-passed_s / self._time_constant_s)) * (value - self._value)
        self._value, self._time_s = value, time_s
        return value


class Compositor:
    """Puts faces into frames, in order of time.

    Args:
        settings: how.
        finder: tells what is in front of the face, which then stays; None: nobody is asked.
    """

    def __init__(self, settings: BlendSettings, finder: PartFinder | None = None) -> None:
        self.settings, self._finder = settings, finder
        self._membrane = SlowValue(_MEMBRANE_TIME_S, jump=0.1)
        self._occluders = SlowValue(_OCCLUDER_TIME_S, jump=0.5)
        self._covered = SlowValue(_OCCLUDER_TIME_S, jump=0.5)
        self._activity = SlowValue(_ACTIVITY_TIME_S, jump=0.5)
        self._grain = SlowValue(_GRAIN_TIME_S, jump=0.02)
        self._gains = SlowValue(_GAINS_TIME_S, jump=0.5)
        self._kept = SlowValue(_KEPT_TIME_S, jump=0.5)

    @property
    def uses_base(self) -> bool:
        """Whether the unedited faces make a difference."""
        settings = self.settings
        return settings.mode != "replace" or settings.colour_match or settings.detail_match or settings.keep_occluders

    def put(
        self,
        frame: Tensor,
        edited: Tensor,
        base: Tensor | None,
        region: FaceRegion,
        time_s: float,
        index: int,
        shown: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """The finished frame.

        Args:
            frame: `(H, W, 3)` float32 in [0, 1].
            edited: `(3, S, S)` in about [-1, 1].
            base: the same without the edit, or None.
            region: where it goes.
            time_s: of the frame in the source clip.
            index: number of the output frame, which seeds the grain.
            shown: `(1, ACTIVITY_SIDE, ACTIVITY_SIDE)` in [0, 1] or None: where "adaptive" shows the face itself,
                whatever the edit changes there, and where its detail is right as it is.
            out: `(H, W, 3)` to be written to; None: a new tensor.
        """
        settings = self.settings
        if settings.keep_occluders and base is not None:
            covered = self._occluders.follow(find_occluders(frame, base, region), time_s)
            region = without(region, covered)
        if self._finder is not None:
            covered = self._covered.follow(find_covered(frame, region, self._finder, settings.region), time_s)
            region = without(region, covered)
        if settings.mode == "residual" and base is not None:
            change = residual_change(edited, base, region)
        elif settings.mode == "adaptive" and base is not None:
            active = self._activity.follow(edit_activity(edited, base), time_s)
            active = active if shown is None else torch.maximum(active, shown)
            face, made = self._in_light_of(frame, edited, base, region)
            replacing = self._replacing(frame, face, made, region, time_s, shown)
            change = torch.lerp(face - made, replacing, warp_into(active, region))
        else:
            faces = self._in_light_of(frame, edited, base, region)
            change = self._replacing(frame, faces[0], faces[1] if base is not None else None, region, time_s, shown)
            if settings.grain:
                change = self._with_grain(frame, change, region, time_s, index)
        return add_change(frame, self._join(change, region, time_s), region, out)

    def _in_light_of(
        self, frame: Tensor, edited: Tensor, base: Tensor | None, region: FaceRegion
    ) -> tuple[Tensor, ...]:
        """The face with the edit and, where there is one, without it, in the light of the frame: `(h, w, 3)` over the
        region's box, in about [0, 1]. Bit by bit the same where `edited` and `base` are."""
        given = [edited] if base is None else [edited, base]
        faces = warp_into(torch.cat([face.clamp(-1, 1) for face in given]), region).add_(1).mul_(0.5)
        found = faces.split(3, dim=-1)
        if not self.settings.colour_match:
            return found
        offset = offset_at_edge(frame, faces, region) if base is None else light_offset(frame, base, region)
        return tuple(face + offset for face in found)

    def _replacing(
        self, frame: Tensor, face: Tensor, made: Tensor | None, region: FaceRegion, time_s: float, shown: Tensor | None
    ) -> Tensor:
        """`(h, w, 3)` over the region's box: what turns the frame into the edited face, as sharp as the frame; as it is
        where it is `shown`. `made` is the face without the edit."""
        rows, columns = region.slices()
        part = frame[rows, columns]
        face = face.clamp(0, 1)
        change = face - part
        if self.settings.detail_match:
            missing = self._missing_detail(part, face, None if made is None else made.clamp(0, 1), region, time_s)
            change += missing if shown is None else missing * (1 - warp_into(shown, region))
        return change

    def _missing_detail(
        self, part: Tensor, face: Tensor, base: Tensor | None, region: FaceRegion, time_s: float
    ) -> Tensor:
        """`(h, w, 1)` that the edited face over the region's box lacks; `base` is the one without the edit."""
        mask, around = region.mask, part @ LUMA
        source = detail_of(around, mask)
        edited = detail_of(torch.where(mask > 0, face @ LUMA, around), mask)
        if base is None:
            return added_detail(edited, self._gains.follow(detail_gains(source, edited, mask), time_s))
        made = detail_of(torch.where(mask > 0, base @ LUMA, around), mask)
        gains = self._gains.follow(detail_gains(source, made, mask), time_s)
        kept = self._kept.follow(kept_detail(source, edited, made, region), time_s)
        return added_detail(edited, gains, source.bands - made.bands, warp_into(kept, region)[..., 0])

    def _with_grain(self, frame: Tensor, change: Tensor, region: FaceRegion, time_s: float, index: int) -> Tensor:
        """The change plus the grain that the face lacks against the frame."""
        rows, columns = region.slices()
        part = frame[rows, columns]
        source = grain_deviation(part @ LUMA, region.mask)
        rendered = grain_deviation((part + change) @ LUMA, region.mask)
        missing = torch.tensor(max(source**2 - rendered**2, 0.0) ** 0.5)
        deviation = float(self._grain.follow(missing, time_s))
        return change + make_grain(part.shape[0], part.shape[1], deviation=deviation, seed=index)

    def _join(self, change: Tensor, region: FaceRegion, time_s: float) -> Tensor:
        if self.settings.join == "multiband":
            return multiband(change, region.mask)
        if self.settings.join == "poisson":
            surface = self._membrane.follow(membrane(change, region), time_s)
            change = change - warp_into(surface, region)
        return feathered(change, region.mask)


def without(region: FaceRegion, covered: Tensor) -> FaceRegion:
    """The region less what `(1, s, s)` in [0, 1], in crop coordinates, says is covered."""
    return replace(region, mask=region.mask * (1 - warp_into(covered, region)[..., 0]))
