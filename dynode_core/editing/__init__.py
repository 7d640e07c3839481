"""Directions and other ways to change one code."""

from .directions import expression_directions, list_directions, load_direction, shipped_directions
from .from_image import edit_from_image
from .latent import LAYER_PRESETS, apply_direction, first_latent, layer_mask
from .mixing import latent_for, mix_latents, morph_latents, sample_of, sampled_latents
from .networks import NetworkEdit

__all__ = [
    "LAYER_PRESETS",
    "NetworkEdit",
    "apply_direction",
    "edit_from_image",
    "expression_directions",
    "first_latent",
    "latent_for",
    "layer_mask",
    "list_directions",
    "load_direction",
    "mix_latents",
    "morph_latents",
    "sample_of",
    "sampled_latents",
    "shipped_directions",
]
