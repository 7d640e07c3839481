"""ComfyUI's CLIP and CLIP_VISION as plain functions: a text to an embedding, pictures to embeddings with gradients."""

from __future__ import annotations

import copy
from typing import Any

import comfy.model_management
import torch
import torch.nn.functional as F
from torch import Tensor

from ..dynode_core.editing.text import EmbedImages
from .devices import make_ordinary

_ADVICE = (
    "Load one CLIP model for both sockets, such as model.safetensors of openai/clip-vit-large-patch14: once with Load "
    "CLIP (type stable_diffusion) and once with Load CLIP Vision."
)


def text_embedding(clip: Any, text: str) -> Tensor:
    """`(E,)`: the projected embedding of a text, CPU.

    Raises:
        ValueError: an empty text, or an encoder without a text projection.
    """
    if not text.strip():
        raise ValueError("The text is empty. Say what the face should look like, such as 'a face with a beard'.")
    with torch.no_grad():
        _, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled="unprojected")
        if pooled is None:
            raise ValueError(f"This text encoder has no embedding of a whole text. {_ADVICE}")
        project = _text_projection(clip, pooled.shape[-1])
        embedding: Tensor = project(pooled)[0]
        return embedding.detach().float().cpu().clone()


def _kept_from_changes(saved: Tensor) -> Tensor:
    """What backward needs, where ComfyUI's layers go on to add to it in place: the states `(N, tokens, D)`."""
    return saved.clone() if saved.ndim == 3 else saved


def _text_projection(clip: Any, width: int) -> torch.nn.Module:
    """The layer that takes the pooled state of a text of `width` numbers to where pictures are embedded too.

    Files without it load all the same: ComfyUI then leaves its memory as it was, so what is there is looked at.
    """
    for model in clip.cond_stage_model.modules():
        projection = getattr(model, "text_projection", None)
        weight = getattr(projection, "weight", None)
        if weight is not None and weight.shape[-1] == width and _is_trained(weight.detach().float().cpu()):
            assert isinstance(projection, torch.nn.Module)
            return projection
    raise ValueError(
        "This CLIP text encoder came without its text projection (those inside image checkpoints do), so its "
        f"embeddings can't be compared with pictures. {_ADVICE}"
    )


def _is_trained(weight: Tensor) -> bool:
    """Whether a projection is neither missing (zeros, leftovers in memory) nor a stand-in that changes nothing."""
    if not bool(torch.isfinite(weight).all()) or not 1e-4 < float(weight.std()) < 10:
        return False
    return weight.shape[0] != weight.shape[1] or not torch.equal(weight, torch.eye(len(weight)))


def image_embedder(clip_vision: Any) -> EmbedImages:
    """A differentiable function from images in [-1, 1] to projected embeddings.

    ComfyUI's own `encode_image` rounds the picture to 8 bits, which stops gradients, and its weights may have been made
    under inference mode: so the picture is prepared here, and the network is copied for as long as the function lives.

    Raises:
        ValueError: the model is no CLIP with a projection.
    """
    if not isinstance(getattr(clip_vision.model, "visual_projection", None), torch.nn.Module):
        raise ValueError(f"This vision model has no projection to embeddings that texts have too. {_ADVICE}")
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    model = copy.deepcopy(clip_vision.model)
    make_ordinary(model)
    model.requires_grad_(False)
    device, size = clip_vision.load_device, clip_vision.image_size
    model.to(device)
    mean = torch.tensor(clip_vision.image_mean, device=device).view(1, 3, 1, 1)
    deviation = torch.tensor(clip_vision.image_std, device=device).view(1, 3, 1, 1)

    def embed(images: Tensor) -> Tensor:
        pictures = (images.to(device).float() + 1) / 2
        pictures = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True, align_corners=False)
        values = (pictures.clamp(0, 1) - mean) / deviation
        with torch.autograd.graph.saved_tensors_hooks(_kept_from_changes, lambda kept: kept):
            embeddings: Tensor = model(pixel_values=values, intermediate_output=-2)[2]
        return embeddings.float().to(images.device)

    return embed
