"""From aligned crops to W+ codes."""

from .identity_loss import IdentityNetwork
from .invert import invert_clip
from .losses import LossWeights
from .perceptual import PerceptualDistance, load_perceptual
from .settings import QUALITIES, InversionSettings

__all__ = [
    "QUALITIES",
    "IdentityNetwork",
    "InversionSettings",
    "LossWeights",
    "PerceptualDistance",
    "invert_clip",
    "load_perceptual",
]
