"""An edit from words: latent optimisation as in StyleCLIP (Patashnik et al. 2021, section 4), for any encoder.

The picture of the code moves along a direction in the space of an image encoder whose text counterpart gave the
direction; penalties keep the code near, and the person. Ours are the whitened coordinates, the views (slightly shifted
and enlarged crops, which the encoder can't be fooled by as easily as by one picture) and the direction between two
texts, as StyleGAN-NADA (Gal et al. 2021) takes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_family, check_finite, check_network_output
from ..generators.protocol import Generator
from ..generators.proxy import local_proxies
from ..generators.tuning import with_tuning
from ..inversion.code_space import CodeSpace, measure_code_space
from ..inversion.losses import LossWeights, code_penalty
from ..inversion.schedule import warm_up_and_cosine
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..progress import Progress, silent
from ..tuned_weights import first_set
from ..types import EditedLatent
from .latent import edit_label, layer_mask
from .picture_fit import offset_of

EmbedImages = Callable[[Tensor], Tensor]
"""`(N, 3, S, S)` images in [-1, 1] to `(N, E)` embeddings of any length, differentiable."""
ImageLoss = Callable[[Tensor], Tensor]
"""`(N, 3, S, S)` images in [-1, 1] to `(N,)` losses."""

_WARM_UP_STEPS = 4
_SMALLEST_VIEW = 0.8


@dataclass(frozen=True)
class TextSettings:
    """How words become an edit."""

    steps: int = 60
    learning_rate: float = 0.05
    """Of Adam, in standard deviations of the generator's codes."""
    strength: float = 1.0
    """Factor on the offset that was found."""
    distance: float = 0.5
    """Weight of the mean squared offset, in standard deviations of the generator's codes."""
    identity: float = 0.3
    """Weight of the identity loss, where there is one."""
    layers: str = "all"
    """Rows of the code that may change; see `editing.layer_mask`."""
    views: int = 4
    """Crops of the picture that are judged in each step; 1: the picture itself."""
    size: int = 256
    """Side of the pictures that are judged."""
    seed: int = 0
    """Of the views."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.views < 1:
            raise ValueError(f"steps and views should be 1 or more, but are {self.steps} and {self.views}.")
        if self.distance < 0 or self.identity < 0 or self.learning_rate <= 0:
            raise ValueError(
                f"distance and identity should be 0 or more and the learning rate above 0, but they are "
                f"{self.distance:g}, {self.identity:g} and {self.learning_rate:g}."
            )


@dataclass(frozen=True)
class TextEdit:
    """The edited code and how far the words were followed."""

    latent: EditedLatent
    before: float
    """Cosine between the picture's embedding and the direction of the words."""
    after: float


def words_direction(target: Tensor, neutral: Tensor | None = None) -> Tensor:
    """`(E,)` unit vector: the embedding of a text, or the way to it from that of a neutral text.

    Raises:
        ValueError: NaN, two texts that mean the same to the encoder, or embeddings of different length.
    """
    target = target.detach().float().flatten()
    check_finite("The text's embedding", target)
    if neutral is None:
        return F.normalize(target, dim=0)
    neutral = neutral.detach().float().flatten()
    if neutral.shape != target.shape:
        raise ValueError(f"The two texts have embeddings of {len(target)} and {len(neutral)} numbers.")
    way = F.normalize(target, dim=0) - F.normalize(neutral, dim=0)
    if float(way.norm()) < 1e-5:
        raise ValueError("The text and the neutral text mean the same to the text encoder: there is nothing to change.")
    return F.normalize(way, dim=0)


def edit_by_text(
    latent: EditedLatent,
    generator: Generator,
    embed: EmbedImages,
    direction: Tensor,
    settings: TextSettings | None = None,
    *,
    label: str = "text",
    identity: ImageLoss | None = None,
    progress: Progress = silent,
) -> TextEdit:
    """Move the code so that its picture goes along `direction` in the space of `embed`.

    Args:
        latent: what is edited so far; the search starts there.
        embed: the image encoder; its weights should not require gradients.
        direction: `(E,)` from `words_direction`.
        label: what the edit is called in captions.
        identity: grows as the person is lost.
        progress: called after each step with the pictures before and now; may raise to cancel.
    Raises:
        ValueError: direction and embeddings differ in length, or `layers` names no rows.
        RuntimeError: no gradient reaches the code through `embed`, or an embedding is NaN.
    """
    settings = settings or TextSettings()
    check_family("The first code", latent.family, generator.family)
    rows = layer_mask(settings.layers, generator.num_ws)[:, None]
    generator = with_tuning(generator, first_set(latent.tuning))
    start = latent.w_plus_0[None].to(generator.device)
    with reuse_large_blocks():
        search = _Search(generator, embed, direction, settings, identity, start, rows.to(start))
        offset = search.run(progress)
        before, after = (search.agreement(code) for code in (start, start + settings.strength * offset))
    edited = latent.w_plus_0 + settings.strength * offset[0].cpu()
    name = edit_label(label, settings.strength, settings.layers)
    return TextEdit(replace(latent, w_plus_0=edited, edits=(*latent.edits, name)), before, after)


class _Search:
    """One optimisation."""

    def __init__(
        self,
        generator: Generator,
        embed: EmbedImages,
        direction: Tensor,
        settings: TextSettings,
        identity: ImageLoss | None,
        start: Tensor,
        rows: Tensor,
    ) -> None:
        self._embed, self._settings, self._identity = embed, settings, identity
        self._start, self._rows = start, rows
        self._size = min(settings.size, generator.resolution)
        self._exact = functools.partial(generator.synthesize, size=self._size)
        self._render = local_proxies(generator, start, [self._size])[self._size]
        self._space: CodeSpace = measure_code_space(generator)
        self._random = torch.Generator().manual_seed(settings.seed)
        self._direction = F.normalize(direction.detach().float().to(start.device), dim=0)

    def run(self, progress: Progress) -> Tensor:
        """`(1, L, D)`."""
        settings, start = self._settings, self._start
        coordinates = torch.zeros_like(self._space.encode(start)).requires_grad_(True)
        optimiser = torch.optim.Adam([coordinates], lr=settings.learning_rate)
        with torch.no_grad():
            first = self._render(start)
        weights = LossWeights(row_mean=0.0, size=settings.distance)
        for step in range(settings.steps):
            chosen = coordinates * self._rows
            image = self._render(start + offset_of(self._space, chosen))
            loss = -self._along(self._views(image)).mean() + code_penalty(chosen, weights)[0]
            if self._identity is not None and settings.identity:
                loss = loss + settings.identity * self._identity(image)[0]
            (gradient,) = torch.autograd.grad(loss, [coordinates])
            coordinates.grad = gradient
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * warm_up_and_cosine(step, settings.steps, _WARM_UP_STEPS)
            optimiser.step()
            pair = torch.cat([first, image.detach()], dim=3).float()
            progress(step + 1, settings.steps, network_to_bytes(pair)[0])
        return offset_of(self._space, coordinates * self._rows).detach()

    @torch.no_grad()
    def agreement(self, w_plus: Tensor) -> float:
        """Cosine of the whole picture's embedding and the direction."""
        return float(self._along(self._exact(w_plus))[0])

    def _along(self, images: Tensor) -> Tensor:
        embeddings = self._embed(images).float()
        if embeddings.shape != (len(images), len(self._direction)):
            raise ValueError(
                f"The text has an embedding of {len(self._direction)} numbers, but the picture's has shape "
                f"{tuple(embeddings.shape[1:])}. Text and image encoder should be of the same CLIP model."
            )
        check_network_output("The image encoder", embeddings)
        if torch.is_grad_enabled() and images.requires_grad and not embeddings.requires_grad:
            raise RuntimeError("No gradient comes through the image encoder: it can't be used for an edit by text.")
        return F.normalize(embeddings, dim=1) @ self._direction.to(embeddings.device)

    def _views(self, image: Tensor) -> Tensor:
        """The picture and crops of it, all of its size."""
        views = [image]
        for _ in range(self._settings.views - 1):
            share, left, top = torch.rand(3, generator=self._random).tolist()
            scale = _SMALLEST_VIEW + (1 - _SMALLEST_VIEW) * share
            shift = [(2 * place - 1) * (1 - scale) for place in (left, top)]
            theta = torch.tensor([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]], device=image.device)
            grid = F.affine_grid(theta[None], [1, *image.shape[1:]], align_corners=False)
            views.append(F.grid_sample(image, grid, padding_mode="border", align_corners=False))
        return torch.cat(views)
