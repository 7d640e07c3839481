"""Pictures of what directions do: a row for each, a column for each strength, with readable labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..generators.protocol import Generator
from ..generators.tuning import with_tuning
from ..layout import network_to_bytes
from ..memory import reuse_large_blocks
from ..tuned_weights import first_set
from ..types import EditDirection, EditedLatent
from .latent import applied_rows
from .networks import NetworkEdit

MOST_CELLS = 400
_PAPER, _INK = (24, 24, 28), (238, 238, 238)


def parse_strengths(text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        ValueError: none, or something that is no number or not finite.
    """
    try:
        values = tuple(float(part) for part in text.replace(";", ",").split(",") if part.strip())
    except ValueError:
        values = ()
    if not values or not np.isfinite(values).all():
        raise ValueError(f"strengths should be numbers such as '-2, -1, 0, 1, 2', but are {text!r}.")
    return values


@torch.no_grad()
def draw_directions(
    latent: EditedLatent,
    generator: Generator,
    edits: Sequence[EditDirection | NetworkEdit],
    strengths: Sequence[float],
    *,
    units: Sequence[float] | None = None,
    layers: str = "all",
    tile_px: int = 192,
    progress: Callable[[int, int, np.ndarray | None], None] = lambda done, total, preview: None,
) -> np.ndarray:
    """`(H, W, 3)` uint8: the face of `latent` moved along each of `edits`; the unmoved face is drawn once.

    Args:
        units: what strength 1 means for each of `edits`; None: 1 for all.
        layers: rows that the edits act on.
        progress: called after each picture with it.
    Raises:
        ValueError: an edit does not fit, or more than `MOST_CELLS` pictures.
    """
    if not edits or len(edits) * len(strengths) > MOST_CELLS:
        raise ValueError(
            f"A preview shows 1 to {MOST_CELLS} pictures, but {len(edits)} directions at {len(strengths)} strengths "
            "were asked for. Choose fewer."
        )
    factors = [1.0] * len(edits) if units is None else list(units)
    rows = [applied_rows(edit, latent.w_plus_0, latent.family, layers) for edit in edits]
    tuned = with_tuning(generator, first_set(latent.tuning))
    size = _render_size(generator.resolution, tile_px)
    total = len(edits) * len(strengths)
    tiles: list[list[np.ndarray]] = []
    unmoved: np.ndarray | None = None
    with reuse_large_blocks():
        for row, factor in zip(rows, factors, strict=True):
            tiles.append([])
            for strength in strengths:
                done = sum(map(len, tiles))
                progress(done, total, None)
                if strength == 0 and unmoved is not None:
                    tile = unmoved
                else:
                    code = latent.w_plus_0 + strength * factor * row
                    tile = _tile(tuned.synthesize(code[None].to(tuned.device), size=size), tile_px)
                    unmoved = tile if strength == 0 else unmoved
                tiles[-1].append(tile)
                progress(done + 1, total, tile)
    heads = [f"{strength:+g}" if strength else "0" for strength in strengths]
    return labelled_grid(tiles, [edit.name for edit in edits], heads)


def labelled_grid(tiles: Sequence[Sequence[np.ndarray]], names: Sequence[str], heads: Sequence[str]) -> np.ndarray:
    """Rows of `(S, S, 3)` uint8 tiles with a name before each row and a head above each column."""
    side, gap = tiles[0][0].shape[0], 4
    font_px = max(13, side // 11)
    font = ImageFont.load_default(font_px)
    left = 2 * gap + round(max(font.getlength(name) for name in names)) + gap
    top = round(font_px * 1.7)
    width, height = left + len(heads) * (side + gap), top + len(names) * (side + gap)
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    for column, head in enumerate(heads):
        draw.text((left + column * (side + gap) + side / 2, top / 2), head, _INK, font, anchor="mm")
    for row, name in enumerate(names):
        y = top + row * (side + gap)
        draw.text((2 * gap, y + side / 2), name, _INK, font, anchor="lm")
        for column, tile in enumerate(tiles[row]):
            page.paste(Image.fromarray(tile), (left + column * (side + gap), y))
    return np.asarray(page)


def _render_size(resolution: int, tile_px: int) -> int:
    """The smallest size of the generator that is at least a tile."""
    size = resolution
    while size // 2 >= tile_px:
        size //= 2
    return size


def _tile(image: Tensor, tile_px: int) -> np.ndarray:
    picture = Image.fromarray(network_to_bytes(image.float().cpu())[0])
    return np.asarray(picture.resize((tile_px, tile_px), Image.Resampling.LANCZOS))
