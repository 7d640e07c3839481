"""Cut the quad of a face out of each frame, sub-pixel exact and without aliasing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_shape
from ..layout import pictures_to_network
from ..types import AlignedClip
from .quads import quad_sides_px
from .warp import apply_homography, pixel_grid, quad_to_crop_matrices, sample, shrink, warp_to_frame

__all__ = ["crop", "crop_clip", "quad_to_crop_matrices", "warp_to_frame"]

_FRAMES_PER_READ = 8
# Outside the frame, after FFHQ's recipe (Karras et al. 2019), in sides of the quad: blur, and where it is complete;
# where the mirrored picture has faded into the mean colour. Unlike there, pixels inside the frame stay untouched.
_BLUR_SIGMA = 0.028
_BLURRED_AT = 0.14
_FADED_AT = 0.42


def crop(frames: Tensor, quads: np.ndarray, size: int) -> Tensor:
    """Crop each frame to its quad.

    Outside the frame the picture is mirrored, blurred and faded into its mean colour. Where the crop has fewer pixels
    than its quad, the frame is filtered first (bicubic, antialiased) and four samples are averaged per pixel.

    Convention: pixel centres at +0.5, origin top-left, quad order TL, BL, BR, TR.

    Args:
        frames: `(n, H, W, 3)` float in [0, 1].
        quads: `(n, 4, 2)` pixels.
        size: S, side of the crops, pixels.

    Returns:
        `(n, 3, S, S)` in [-1, 1], dtype and device of `frames`.

    Raises:
        ValueError: `frames` and `quads` differ in n, or a quad has no area.
    """
    check_shape("frames", frames, ("n", "H", "W", 3))
    check_shape("quads", quads, (len(frames), 4, 2))
    if size < 1:
        raise ValueError(f"The side of the crop should be 1 px or more, but is {size}.")
    quads = np.asarray(quads, dtype=np.float64)
    crops = frames.new_empty((len(frames), 3, size, size))
    matrices = np.linalg.inv(quad_to_crop_matrices(quads, size))
    for i, side in enumerate(quad_sides_px(quads)):
        crops[i] = _crop_one(frames[i], quads[i], matrices[i], side, size)
    return crops


def crop_clip(
    aligned: AlignedClip, indices: Sequence[int], size: int | None = None, *, device: torch.device | str = "cpu"
) -> Tensor:
    """Crops of chosen frames of an aligned clip, in the order asked for.

    Frames are read a few at a time, so memory holds the crops and 8 frames. Every crop is the same whether it is cut
    alone or among others.

    Args:
        aligned: clip and quads.
        indices: frame numbers, any order, repeats allowed.
        size: side of the crops, pixels; None: `aligned.crop_size`.
        device: where to sample and where the crops are left.

    Returns:
        `(n, 3, S, S)` float32 in [-1, 1].
    """
    size = aligned.crop_size if size is None else size
    wanted = np.asarray(indices, dtype=np.int64)
    crops = torch.empty((len(wanted), 3, size, size), dtype=torch.float32, device=device)
    order = np.argsort(wanted, kind="stable")
    for start in range(0, len(order), _FRAMES_PER_READ):
        places = order[start : start + _FRAMES_PER_READ]
        frames = aligned.clip.read([int(i) for i in wanted[places]]).to(device)
        crops[torch.as_tensor(places, device=crops.device)] = crop(frames, aligned.quads[wanted[places]], size)
    return crops


def _crop_one(frame: Tensor, quad: np.ndarray, to_frame: np.ndarray, side_px: float, size: int) -> Tensor:
    """`(3, S, S)` in [-1, 1] of one `(H, W, 3)` frame; `to_frame` maps crop pixels to frame pixels."""
    ratio = side_px / size
    samples = 1 if ratio <= 1.001 else 2
    shrink_by = max(1.0, ratio / 2)
    margin = int(np.ceil(4 * shrink_by)) + 2
    x0, y0 = (np.floor(quad.min(axis=0)).astype(int) - margin).tolist()
    x1, y1 = (np.ceil(quad.max(axis=0)).astype(int) + margin).tolist()
    region = _mirrored_region(frame, x0, y0, x1, y1)
    columns, rows = max(2, round((x1 - x0) / shrink_by)), max(2, round((y1 - y0) / shrink_by))
    region = shrink(region, rows, columns)
    height, width = frame.shape[:2]
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        region = _soften_outside(region, (x0, y0, x1, y1), (height, width), side_px)
    points = pixel_grid(0, 0, size * samples, size * samples, 1.0 / samples, frame.device)
    points = apply_homography(to_frame, points) - torch.tensor([x0, y0], dtype=torch.float64, device=frame.device)
    points = points * torch.tensor([columns / (x1 - x0), rows / (y1 - y0)], dtype=torch.float64, device=frame.device)
    sampled = sample(region, points)
    if samples > 1:
        sampled = F.avg_pool2d(sampled, samples)
    return sampled.clamp_(-1, 1)


def _mirrored_region(frame: Tensor, x0: int, y0: int, x1: int, y1: int) -> Tensor:
    """`(3, y1 - y0, x1 - x0)` in [-1, 1]: part of the frame, mirrored at its edges as often as needed."""
    height, width = frame.shape[:2]
    rows, columns = _mirror_indices(y0, y1, height), _mirror_indices(x0, x1, width)
    if rows is None and columns is None:
        part = frame[y0:y1, x0:x1]
    else:
        rows = torch.arange(y0, y1) if rows is None else rows
        columns = torch.arange(x0, x1) if columns is None else columns
        part = frame[rows.to(frame.device)][:, columns.to(frame.device)]
    return pictures_to_network(part[None])[0]


def _mirror_indices(start: int, stop: int, length: int) -> Tensor | None:
    """Indices start..stop - 1 reflected into 0..length - 1 without repeating the edge; None if all lie inside."""
    if start >= 0 and stop <= length:
        return None
    period = max(2 * (length - 1), 1)
    indices = torch.arange(start, stop) % period
    return torch.minimum(indices, period - indices) if length > 1 else torch.zeros_like(indices)


def _soften_outside(
    region: Tensor, box: tuple[int, int, int, int], frame_size: tuple[int, int], side_px: float
) -> Tensor:
    """Blur and fade the part of a `(3, h, w)` region (that covers `box` of the frame) that lies outside the frame."""
    x0, y0, x1, y1 = box
    height, width = frame_size
    rows, columns = region.shape[1:]
    x = x0 + (torch.arange(columns, device=region.device) + 0.5) * ((x1 - x0) / columns)
    y = y0 + (torch.arange(rows, device=region.device) + 0.5) * ((y1 - y0) / rows)
    beyond_x = torch.maximum(-x, x - width).clamp_min(0)
    beyond_y = torch.maximum(-y, y - height).clamp_min(0)
    outside = (torch.maximum(beyond_x[None, :], beyond_y[:, None]) / side_px).to(region.dtype)
    blurred = _blur(region, _BLUR_SIGMA * side_px * columns / (x1 - x0))
    softened = region + (blurred - region) * (outside / _BLURRED_AT).clamp_max(1)
    mean = region.mean(dim=(1, 2), keepdim=True)
    return softened + (mean - softened) * (outside / _FADED_AT).clamp_max(1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `(3, h, w)`, `sigma` in its pixels; wide blurs are computed on a smaller picture."""
    rows, columns = image.shape[1:]
    factor = max(1.0, sigma / 2)
    small = shrink(image, max(2, round(rows / factor)), max(2, round(columns / factor)))
    narrow = sigma / factor
    radius = max(1, int(np.ceil(3 * narrow)))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / max(narrow, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(small[None], (radius, radius, 0, 0), mode="replicate")
    small = F.conv2d(padded, kernel, groups=3)
    padded = F.pad(small, (0, 0, radius, radius), mode="replicate")
    small = F.conv2d(padded, kernel.transpose(2, 3), groups=3)
    return F.interpolate(small, (rows, columns), mode="bilinear", align_corners=False)[0]
