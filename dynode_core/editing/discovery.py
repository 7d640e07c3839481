"""Directions that are found: in the generator's weights, in its codes, or from scores of its pictures.

- SeFa (Shen and Zhou 2021, arXiv 2007.06600): the directions that move the styles of the layers most, in closed form.
- PCA of sampled w (GANSpace, Harkonen et al. 2020, arXiv 2004.02546).
- Scores of sampled pictures, by ridge regression.

Strength 1 of each is one standard deviation of the generator's own codes along it. Signs are arbitrary except for
scores, but always the same: the largest entry is positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_finite
from ..families import w_family
from ..generators.protocol import Generator
from ..types import EditDirection, EditedLatent
from .latent import layer_mask

_SAMPLES = 10_000
_RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""In units of the mean variance of w."""
FEWEST_SCORES = 8


@dataclass(frozen=True)
class ScoredDirection:
    """A direction from scores, and how far to trust it."""

    direction: EditDirection
    correlation: float
    """Between the scores and what the other pictures predict for each (leave one out). Near 0: nothing was found."""
    count: int


def sefa(generator: Generator, count: int = 10, layers: str = "all") -> list[EditDirection]:
    """The `count` directions to which the styles of the chosen layers answer most.

    As in the authors' code, every style channel counts alike whatever the size of its weights.

    Raises:
        ValueError: the generator shows no style layers, `layers` names none, or there are fewer directions.
    """
    affine = style_weights(generator)
    chosen = [weight for weight, used in zip(affine, layer_mask(layers, generator.num_ws), strict=True) if used]
    stacked = torch.cat([weight for weight in chosen if weight is not None] or [torch.zeros(0, generator.w_dim)])
    if not len(stacked):
        raise ValueError(f"The layers {layers!r} of this generator have no styles of their own. Choose other layers.")
    _check_count(count, generator.w_dim)
    channels = stacked.double()
    channels = channels / channels.norm(dim=1, keepdim=True).clamp_min(1e-12)
    axes = torch.linalg.eigh(channels.T @ channels).eigenvectors.flip(1)[:, :count]
    covariance = _w_covariance(generator)
    deviations = torch.einsum("dn,de,en->n", axes, covariance, axes).clamp_min(0).sqrt()
    return _named(generator, "sefa", axes * deviations, layers)


def principal_directions(generator: Generator, count: int = 10, layers: str = "all") -> list[EditDirection]:
    """The `count` directions along which the generator's own codes vary most, from 10 000 seeded samples."""
    _check_count(count, generator.w_dim)
    variances, axes = torch.linalg.eigh(_w_covariance(generator))
    scaled = (axes * variances.clamp_min(0).sqrt()).flip(1)[:, :count]
    return _named(generator, "ganspace", scaled, layers)


def direction_from_scores(
    latents: Sequence[EditedLatent], scores: Sequence[float], name: str, layers: str = "all"
) -> ScoredDirection:
    """The direction along which `scores` of sampled pictures rise.

    Ridge regression of the scores on the codes; how much ridge is decided by leaving one out. Light and pose that
    happen to go with a high score among few samples come along, so use many.

    Args:
        latents: codes of the pictures, of one generator.
        scores: one per picture, in any unit; higher means more of it.
        layers: rows that the direction acts on.
    Raises:
        ValueError: too few, not one score each, all the same, or codes of several generators.
    """
    values = torch.as_tensor(np.asarray(scores, dtype=np.float64))
    families = {latent.family for latent in latents}
    if len(latents) < FEWEST_SCORES or len(values) != len(latents) or len(families) != 1:
        raise ValueError(
            f"A direction needs at least {FEWEST_SCORES} codes of one generator and a score for each, but there are "
            f"{len(latents)} codes of {len(families)} generators and {len(values)} scores."
        )
    check_finite("scores", values)
    codes = torch.stack([latent.w_plus_0 for latent in latents]).double()
    mask = layer_mask(layers, codes.shape[1])
    w = codes[:, mask.bool()].mean(1)
    w, y = w - w.mean(0), values - values.mean()
    if float(y.std()) < 1e-12 or float(w.std()) < 1e-12:
        raise ValueError("All scores (or all codes) are the same: there is nothing to learn from them.")
    read_out, correlation = _ridge(w, y)
    pattern = w.T @ (w @ read_out)  # what changes in w with the prediction: it stays among the generator's codes
    unit = pattern / pattern.norm()
    row = unit * (w @ unit).std()
    equal = bool((codes == codes[:, :1]).all())
    family = latents[0].family
    direction = _placed(name, row.float(), family, mask, equal)
    return ScoredDirection(direction, correlation, len(values))


def style_weights(generator: Generator) -> list[Tensor | None]:
    """For each row of W+ the `(C, D)` weights that turn it into styles of convolutions; None for a row without.

    Raises:
        ValueError: a generator of a kind that does not show them.
    """
    rows: list[Tensor | None] = [None] * generator.num_ws

    def add(row: int, weight: Tensor) -> None:
        known = rows[row]
        weight = weight.detach().float().cpu()
        rows[row] = weight if known is None else torch.cat([known, weight])

    module: Any = generator
    if hasattr(module, "conv1_affine") and hasattr(module, "layers"):
        add(0, module.conv1_affine.weight)
        for i, layer in enumerate(module.layers):
            for row, affine in ((1, layer.up), (1, layer.conv1.affine), (2, layer.conv2.affine)):
                add(3 * i + row, affine.weight)
        add(3 * len(module.layers), module.to_img_affine.weight)
    elif hasattr(module, "synthesis"):
        row = 0
        for block in module.synthesis.blocks:
            for layer in block.layers:
                add(row, layer.affine.weight)
                row += 1
    else:
        raise ValueError("This kind of generator does not show the weights that SeFa reads. Use PCA instead.")
    return rows


def _named(generator: Generator, kind: str, columns: Tensor, layers: str) -> list[EditDirection]:
    mask = layer_mask(layers, generator.num_ws)
    signs = columns.gather(0, columns.abs().argmax(0, keepdim=True)).sign()
    rows = (columns * signs).T.float()
    return [_placed(f"{kind} {i}", row.contiguous(), generator.family, mask, True) for i, row in enumerate(rows)]


def _placed(name: str, row: Tensor, family: str, mask: Tensor, equal_rows: bool) -> EditDirection:
    """A row for all layers as a direction of W, else rows that are 0 elsewhere."""
    if bool(mask.all()) and equal_rows:
        return EditDirection(name, row, w_family(family))
    return EditDirection(name, mask[:, None] * row, family)


def _check_count(count: int, w_dim: int) -> None:
    if not 1 <= count <= w_dim:
        raise ValueError(f"There are 1 to {w_dim} directions to find, but {count} were asked for.")


@torch.no_grad()
def _w_covariance(generator: Generator) -> Tensor:
    """`(D, D)` float64."""
    z = torch.randn(_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(0)).to(generator.device)
    return torch.cov(torch.cat([generator.map(part)[:, 0].cpu().double() for part in z.split(1000)]).T)


def _ridge(w: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """`(D,)` read-out and the leave-one-out correlation of the ridge that predicts best. Inputs are centred."""
    best: tuple[float, Tensor] | None = None
    gram, unit = w @ w.T, w.square().mean() * len(w)
    identity = torch.eye(len(w), dtype=w.dtype)
    for share in _RIDGES:
        inverse = torch.linalg.inv(gram + share * unit * identity)
        dual = inverse @ y
        predicted = y - dual / inverse.diagonal()  # leave-one-out residuals of kernel ridge regression
        correlation = float(torch.corrcoef(torch.stack([y, predicted]))[0, 1].nan_to_num(0.0))
        if best is None or correlation > best[0]:
            best = (correlation, w.T @ dual)
    assert best is not None
    return best[1], best[0]
