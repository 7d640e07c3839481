"""Codes that other programs wrote: which tensor of a file they are, and to which frames they belong.

Layouts in circulation: NVIDIA's projector `projected_w.npz` {w: (1, L, D)}; e4e `latents.pt` (N, L, D); STIT
{generator, pivots (N, L, D), quads}; PTI one (1, L, D) per file; lists and dictionaries with a code per picture; W
codes (N, D).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.errors import CheckpointError
from ..checkpoints.tensors import load_tensors
from ..checks import check_finite
from ..families import counterpart, move_rows, parse_family
from ..generators.protocol import Generator
from ..generators.sampling import sample_codes
from ..types import AlignedClip, InvertedClip

ONE_CODE, W_CODES, AUTOMATIC = "one W+ code", "W codes", "automatic"
LAYOUTS = (AUTOMATIC, ONE_CODE, W_CODES)
"""How a table of two axes is read: as the rows of one code, or as one code of W per line."""
SUFFIXES = (".safetensors", ".pt", ".pth", ".npy", ".npz")
_USUAL_NAMES = ("pivots", "w_plus", "wplus", "latents", "latent_codes", "codes", "latent", "w", "ws", "projected_w")
_NO_CODES = re.compile(r"(^|[._])(latent_avg|w_avg|mean|noise\w*|quads|z)(\.|$)")
_FAR = 4.0
"""Codes so many times as far from the mean face as sampled ones hardly show a face."""


@dataclass(frozen=True)
class FramesOfCodes:
    """Which frames the codes of a file belong to: `first`, `first + every`, and so on."""

    first: int = 0
    every: int = 1
    fps: Fraction = Fraction(25)
    """Frames per second, where there is no clip that tells."""

    def __post_init__(self) -> None:
        if self.first < 0 or self.every < 1 or self.fps <= 0:
            raise ValueError(
                f"first = {self.first}, every = {self.every} and fps = {float(self.fps):g}: expected at least 0, at "
                "least 1 and more than 0."
            )


def read_foreign_codes(
    path: Path | str,
    generator: Generator,
    frames: FramesOfCodes | None = None,
    *,
    layout: str = AUTOMATIC,
    aligned: AlignedClip | None = None,
) -> InvertedClip:
    """Codes of a .pt, .npy, .npz or plain .safetensors file for `generator`. Nothing in the file is run.

    Args:
        frames: which frames they belong to.
        layout: see `LAYOUTS`; only asked where the file leaves it open.
        aligned: the clip whose faces they show: gives the times, and cuts between shots.
    Returns:
        Codes with `report["notes"]`: what was done to them, and what speaks against them.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no codes in it, or codes that do not fit the generator or the clip.
    """
    path, frames = Path(path), frames or FramesOfCodes()
    found = _fitting(path, load_tensors(path), generator.w_dim)
    w_plus, notes = _as_rows(path, found, generator, layout)
    check_finite(f"The codes of {path.name}", w_plus)
    far = _distance_in_samples(w_plus, generator)
    if far > _FAR:
        notes.append(
            f"The codes lie {far:.0f} times as far from the mean face as faces that this generator samples: they were "
            "probably found with another generator, and pictures of them will not look right."
        )
    indices, frame_times, fps = _places(path, len(w_plus), frames, aligned)
    return InvertedClip(
        w_plus=w_plus,
        times=frame_times[indices],
        frame_indices=indices,
        loss=np.full(len(w_plus), np.nan, np.float32),
        frame_times=frame_times,
        fps=fps,
        family=generator.family,
        generator_id=generator.generator_id,
        report={
            "keyframes": len(w_plus),
            "frames": len(frame_times),
            "file": path.name,
            "notes": notes,
            **({} if aligned is None else {"source": aligned.clip.clip_id}),
        },
        cuts_s=None if aligned is None else aligned.track.cut_times(frame_times),
    )


def _fitting(path: Path, tensors: dict[str, Tensor], w_dim: int) -> Tensor:
    """The one tensor of the file, or the stack of a code per picture, that can be codes: `(..., D)` float32."""
    fitting = {
        name: tensor.float()
        for name, tensor in tensors.items()
        if tensor.ndim in (1, 2, 3, 4) and tensor.shape[-1] == w_dim and tensor.numel() and tensor.is_floating_point()
        if not _NO_CODES.search(name)
    }
    for usual in _USUAL_NAMES:
        if usual in fitting:
            return fitting[usual]
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    shapes = {tensor.shape for tensor in fitting.values()}
    if len(shapes) == 1 and len(fitting) == len(tensors):  # one code per picture, under a number or a file name
        codes = torch.stack([fitting[name] for name in sorted(fitting, key=_natural)])
        return codes[:, 0] if codes.ndim == 4 and codes.shape[1] == 1 else codes
    listed = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:4])
    raise CheckpointError(
        f"{path.name} should hold codes of width {w_dim}, as this generator has them: (N, rows, {w_dim}) or (N, "
        f"{w_dim}). It holds {listed}{', …' if len(tensors) > 4 else ''}."
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: frame_2 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _as_rows(path: Path, codes: Tensor, generator: Generator, layout: str) -> tuple[Tensor, list[str]]:
    """`(K, L, D)` codes of the generator, and what was done to them."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout should be one of {', '.join(LAYOUTS)}, but is {layout!r}.")
    num_ws = generator.num_ws
    notes: list[str] = []
    other = counterpart(generator.family)
    other_family = parse_family(other) if other else None
    other_rows = other_family.num_ws if other_family else None
    if codes.ndim == 4:
        codes = codes.flatten(0, 1)
    if codes.ndim == 1:
        codes = codes[None]
    if codes.ndim == 2:
        is_one = layout == ONE_CODE or (layout == AUTOMATIC and len(codes) in (num_ws, other_rows))
        codes = codes[None] if is_one else codes[:, None]
    rows = codes.shape[1]
    if rows == 1:
        return codes.expand(-1, num_ws, -1).contiguous(), ["Codes of W: all rows are equal."]
    if rows == num_ws:
        return codes, notes
    if other is not None and rows == other_rows:
        moved = move_rows(codes, other, generator.family, num_ws)
        notes.append(
            f"The {rows} rows of {other} were moved to the {num_ws} rows of {generator.family}. Codes whose rows "
            "differ much look different there."
        )
        return moved.contiguous(), notes
    also = f" or {other_rows} (as {other} has)" if other_rows else ""
    raise CheckpointError(
        f"The codes of {path.name} have {rows} rows, but this generator takes 1, {num_ws}{also}: load the generator "
        "that they were made with."
    )


def _distance_in_samples(w_plus: Tensor, generator: Generator) -> float:
    """Mean distance of the rows from the mean w, in that of sampled codes."""
    w_avg = generator.w_avg.float().cpu()
    sampled = sample_codes(generator, range(64))[:, 0]
    return float((w_plus - w_avg).norm(dim=-1).mean() / (sampled - w_avg).norm(dim=-1).mean())


def _places(
    path: Path, count: int, frames: FramesOfCodes, aligned: AlignedClip | None
) -> tuple[np.ndarray, np.ndarray, Fraction]:
    """Frame of each code, times of all frames, frames per second."""
    indices = frames.first + frames.every * np.arange(count, dtype=np.int64)
    if aligned is None:
        times = np.arange(int(indices[-1]) + 1) / float(frames.fps)
        return indices, times, frames.fps
    num_frames = aligned.clip.num_frames
    if indices[-1] >= num_frames:
        raise ValueError(
            f"{path.name} holds {count} codes; from frame {frames.first} on, one every {frames.every}, they reach "
            f"frame {indices[-1]}, but the clip has {num_frames} frames. Choose other frames, or connect the clip that "
            "they belong to."
        )
    return indices, aligned.clip.frame_times, aligned.clip.fps
