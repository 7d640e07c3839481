"""The picture that shows what the demo did: at several times, original, inverted, edited and blended side by side."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from comfy_env import REPOSITORY

sys.path.insert(0, str(REPOSITORY))  # this script uses the core without ComfyUI, as the command line does

from dynode_core.clip import TensorClip
from dynode_core.faces.align import align_clip
from dynode_core.faces.crop import crop
from dynode_core.faces.landmarks import FaceLandmarker
from dynode_core.layout import network_to_bytes
from dynode_core.model_files import find_landmarker
from dynode_core.video import FileClip

TILE_PX = 320
HEADER_PX = 28
COLUMNS = ("original", "inverted", "edited", "blended")


@contextlib.contextmanager
def without_native_log() -> Iterator[None]:
    """Keep what mediapipe's native code writes to the error output away from the reader of the demo."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def write(
    path: Path, original: Path, blended: Path, times: Sequence[float], inverted: Sequence[Path], edited: Sequence[Path]
) -> None:
    """Write the sheet.

    Args:
        path: PNG file to write.
        original: the clip as it came.
        blended: the finished clip, played at the same speed.
        times: seconds of the rows.
        inverted: one picture of the generator per row, before the edit.
        edited: the same after it.
    """
    before, after = frames_at(original, times), frames_at(blended, times)
    quads = face_quads(before)
    rows = []
    for column in (before, after):
        rows.append(list(network_to_bytes(crop(column, quads, TILE_PX))))
    pictures = [[read_picture(file, TILE_PX) for file in files] for files in (inverted, edited)]
    _draw(path, [rows[0], *pictures, rows[1]], times)


def frames_at(file: Path, times: Sequence[float]) -> torch.Tensor:
    """`(N, H, W, 3)` in [0, 1]: the frames nearest to `times`."""
    clip = FileClip(file)
    return clip.read([int(np.abs(clip.frame_times - second).argmin()) for second in times])


def face_quads(frames: torch.Tensor) -> np.ndarray:
    """`(N, 4, 2)` pixels: the square of the face in each frame, found again because nodes hand it on in memory only."""
    with without_native_log(), FaceLandmarker(find_landmarker()) as landmarker:
        aligned = align_clip(TensorClip(frames, Fraction(1)), landmarker, center_sigma=0.0, axes_sigma=0.0)
    return aligned.quads


def read_picture(file: Path, side: int) -> np.ndarray:
    """`(side, side, 3)` uint8 of a square picture."""
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))


def _draw(path: Path, columns: Sequence[Sequence[np.ndarray]], times: Sequence[float]) -> None:
    width, height = TILE_PX * len(columns), HEADER_PX + TILE_PX * len(times)
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for x, (name, tiles) in enumerate(zip(COLUMNS, columns, strict=True)):
        draw.text((x * TILE_PX + 8, 4), name, fill="black", font=font)
        for y, (tile, second) in enumerate(zip(tiles, times, strict=True)):
            corner = (x * TILE_PX, HEADER_PX + y * TILE_PX)
            sheet.paste(Image.fromarray(tile), corner)
            if x == 0:
                draw.text((corner[0] + 8, corner[1] + 6), f"{second:.2f} s", fill="white", font=font, stroke_width=2,
                          stroke_fill="black")  # fmt: skip
    partial = path.with_suffix(".part.png")
    sheet.save(partial)
    partial.replace(path)
