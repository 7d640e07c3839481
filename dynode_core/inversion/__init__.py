"""From aligned crops to W+ codes."""

from .invert import QUALITIES, InversionSettings, invert_clip
from .losses import LossWeights
from .perceptual import PerceptualDistance, load_perceptual

__all__ = ["QUALITIES", "InversionSettings", "LossWeights", "PerceptualDistance", "invert_clip", "load_perceptual"]
