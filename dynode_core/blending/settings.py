"""What a user chooses about how faces return into their frames."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import check_range
from ..faces.masks import REGIONS

MODES = ("adaptive", "residual", "replace")
JOINS = ("feather", "multiband", "poisson")
BACKGROUNDS = ("flow", "nearest")
WHOLE_CROP = "whole crop"
"""Region without landmarks: the whole quad, fading at its edges."""


@dataclass(frozen=True)
class BlendSettings:
    """How `blend_clip` works. Lengths are shares of the height of the face (brows to chin), so that they mean the same
    at every size."""

    mode: str = "adaptive"
    """"residual": add what the edit changed to the original pixels; this keeps all detail that the generator cannot
    draw, but where it missed a feature the new one is drawn over the old one. "replace": show the rendered face itself.
    "adaptive": the rendered face where the edit changes features, the residual elsewhere. In "residual" and "adaptive"
    an edit of strength 0 gives the source back exactly."""
    region: str = "face and forehead"
    """A region of `faces.masks.face_mask`, or "whole crop"."""
    dilate: float = 0.0
    """Grow the region (shrink it, if negative)."""
    feather: float = 0.08
    """Width over which the edge of the region fades, half of it on each side."""
    colour_match: bool = True
    """For rendered faces ("replace", "adaptive"): add the light and colour that the reconstruction lacks."""
    detail_match: bool = True
    """For rendered faces: give their fine detail the strength that it has in the source (see `detail`)."""
    join: str = "feather"
    """How the change meets the frame: "feather" fades it; "multiband" fades light over a longer way than detail;
    "poisson" shifts its colours until they agree along the edge (which also takes back a change of complexion)."""
    grain: bool = False
    """"replace" only: add as much camera grain as the face lacks against the frame."""
    keep_occluders: bool = False
    """Leave out what stands before the face: where the source differs much from the reconstruction."""
    background: str = "flow"
    """Frames at times between source frames: "flow" (moved along optical flow) or "nearest"."""
    mask_smoothing: float = 2.0
    """Standard deviation over time, in frames, of the smoothing of the region's outline within its quad; 0: none."""
    chunk: int = 4
    """Frames handed out at a time."""

    def __post_init__(self) -> None:
        _check_choice("mode", self.mode, MODES)
        _check_choice("region", self.region, (*REGIONS, WHOLE_CROP))
        _check_choice("join", self.join, JOINS)
        _check_choice("background", self.background, BACKGROUNDS)
        check_range("dilate", self.dilate, -0.5, 0.5)
        check_range("feather", self.feather, 0.0, 0.5)
        check_range("mask_smoothing", self.mask_smoothing, 0.0, 100.0)
        check_range("chunk", self.chunk, 1, 8)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} should be one of {', '.join(choices)}, but is {value!r}.")
