"""From edited crops back into the original frames. Only stitching tuning knows of latents."""

from .blend import blend_clip
from .settings import BlendSettings
from .stitch_tuning import StitchResult, StitchSettings, tune_stitching

__all__ = ["BlendSettings", "StitchResult", "StitchSettings", "blend_clip", "tune_stitching"]
