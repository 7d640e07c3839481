"""IMAGE outputs: how many frames they hold, and contact sheets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dynode_core.layout import bytes_to_pictures, network_to_pictures

FIRST = "first frame"
ALL = "all frames"
SHEET_COLUMNS = 3
SHEET_TILE_PX = 480


def picture_frames_input(what: str) -> io.Combo.Input:
    """The combo that decides how many frames an IMAGE output holds."""
    return io.Combo.Input(
        "picture_frames",
        options=[FIRST, ALL],
        default=FIRST,
        tooltip=f"How many frames the IMAGE output '{what}' holds: take all frames to save or change them as pictures. "
        "A long clip as pictures fills the memory; the other outputs stay small whatever its length.",
    )


def check_pictures_fit(count: int, height: int, width: int, *, remedy: str) -> None:
    """Refuse a batch of `count` float32 pictures that would take more than half of the free memory.

    Args:
        remedy: what the user of the node can do about it, a sentence.
    Raises:
        ValueError: it would.
    """
    need = count * height * width * 3 * 4
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if need > free / 2:
        raise ValueError(
            f"{count} frames of {width} x {height} as an IMAGE need {need / 2**30:.1f} GB, and only "
            f"{free / 2**30:.1f} GB of memory are free. {remedy}"
        )


def frames_wanted(picture_frames: str, count: int, height: int, width: int) -> int:
    """How many of `count` frames the IMAGE output holds, after checking that they fit."""
    wanted = count if picture_frames == ALL else min(count, 1)
    remedy = f"Set picture_frames to '{FIRST}' and use the other outputs, or trim the clip."
    check_pictures_fit(wanted, height, width, remedy=remedy)
    return wanted


def gather_faces(read: Callable[[int, int], Tensor], count: int, chunk: int) -> Tensor:
    """`(count, S, S, 3)` in [0, 1] from `read(start, stop) -> (n, 3, S, S)` in [-1, 1], without a second full copy."""
    pictures: Tensor | None = None
    for start in range(0, count, chunk):
        piece = network_to_pictures(read(start, min(start + chunk, count))).cpu()
        if pictures is None:
            pictures = torch.empty((count, *piece.shape[1:]))
        pictures[start : start + len(piece)] = piece
    if pictures is None:
        raise ValueError("There are no frames to show.")
    return pictures


def sheet(tiles: Sequence[np.ndarray], columns: int = SHEET_COLUMNS) -> Tensor:
    """Tiles `(H, W, 3)` uint8 of one shape as one picture `(1, rows*H', columns*W', 3)` in [0, 1]."""
    columns = min(columns, len(tiles))
    pictures = torch.stack([bytes_to_pictures(tile) for tile in tiles])
    height, width = pictures.shape[1:3]
    shrink = SHEET_TILE_PX / max(height, width)
    if shrink < 1:
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        resized = torch.nn.functional.interpolate(pictures.permute(0, 3, 1, 2), size=size, mode="area")
        pictures = resized.permute(0, 2, 3, 1)
    rows = -(-len(tiles) // columns)
    blank = torch.zeros((rows * columns - len(tiles), *pictures.shape[1:]))
    grid = torch.cat([pictures, blank]).reshape(rows, columns, *pictures.shape[1:])
    return grid.permute(0, 2, 1, 3, 4).reshape(1, rows * pictures.shape[1], columns * pictures.shape[2], 3)
