"""Directions and other ways to change one code."""

from .directions import expression_directions, list_directions, load_direction, shipped_directions
from .from_image import PictureEdit, PictureSettings, edit_from_image, fit_picture
from .latent import LAYER_PRESETS, apply_direction, first_latent, layer_mask
from .mixing import latent_for, mix_latents, morph_latents, sample_of, sampled_latents
from .networks import NetworkEdit
from .picture_change import PictureChange, compare_pictures
from .picture_frames import ClipCodes, code_at, codes_of
from .text import TextEdit, TextSettings, edit_by_text, words_direction

__all__ = [
    "LAYER_PRESETS",
    "ClipCodes",
    "NetworkEdit",
    "PictureChange",
    "PictureEdit",
    "PictureSettings",
    "TextEdit",
    "TextSettings",
    "apply_direction",
    "code_at",
    "codes_of",
    "compare_pictures",
    "edit_by_text",
    "edit_from_image",
    "expression_directions",
    "first_latent",
    "fit_picture",
    "latent_for",
    "layer_mask",
    "list_directions",
    "load_direction",
    "mix_latents",
    "morph_latents",
    "sample_of",
    "sampled_latents",
    "shipped_directions",
    "words_direction",
]
