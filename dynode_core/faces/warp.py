"""From crop coordinates to the frame and back: homographies of quads, and the inverse warp of crops into frames."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_finite, check_shape


def quad_to_crop_matrices(quads: np.ndarray, size: int) -> np.ndarray:
    """Homographies that take frame pixels to crop pixels.

    Convention: column vectors (x, y, 1), pixel centres at +0.5 on both sides; the corners TL, BL, BR, TR of a quad go
    to (0, 0), (0, S), (S, S), (S, 0).

    Args:
        quads: `(n, 4, 2)` pixels of the frame.
        size: S, side of the crop in pixels.

    Returns:
        `(n, 3, 3)` float64 with the last entry 1.

    Raises:
        ValueError: a quad without area.
    """
    check_shape("quads", quads, ("n", 4, 2))
    check_finite("quads", quads)
    source = np.asarray(quads, dtype=np.float64)
    target = np.array([(0, 0), (0, size), (size, size), (size, 0)], dtype=np.float64)
    origin = source.mean(axis=1, keepdims=True)  # solving around the centre keeps the system well conditioned
    rows = np.zeros((len(source), 8, 8))
    x, y = np.moveaxis(source - origin, 2, 0)
    rows[:, 0::2, 0], rows[:, 0::2, 1], rows[:, 0::2, 2] = x, y, 1.0
    rows[:, 1::2, 3], rows[:, 1::2, 4], rows[:, 1::2, 5] = x, y, 1.0
    rows[:, 0::2, 6], rows[:, 0::2, 7] = -x * target[:, 0], -y * target[:, 0]
    rows[:, 1::2, 6], rows[:, 1::2, 7] = -x * target[:, 1], -y * target[:, 1]
    try:
        entries = np.linalg.solve(rows, np.broadcast_to(target.reshape(1, 8, 1), (len(source), 8, 1)))[..., 0]
    except np.linalg.LinAlgError as error:
        raise ValueError("A quad has no area: its corners lie on one line. Check the landmarks or the quad.") from error
    centred = np.concatenate([entries, np.ones((len(source), 1))], axis=1).reshape(-1, 3, 3)
    shift = np.tile(np.eye(3), (len(source), 1, 1))
    shift[:, :2, 2] = -origin[:, 0]
    matrices = centred @ shift
    return matrices / matrices[:, 2:, 2:]


def pixel_grid(x0: float, y0: float, columns: int, rows: int, step: float, device: torch.device) -> Tensor:
    """`(rows, columns, 2)` float64 (x, y): centres of cells of `step` pixels, of which the first begins at (x0, y0)."""
    x = x0 + (torch.arange(columns, dtype=torch.float64, device=device) + 0.5) * step
    y = y0 + (torch.arange(rows, dtype=torch.float64, device=device) + 0.5) * step
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def apply_homography(matrix: np.ndarray, points: Tensor) -> Tensor:
    """`(..., 2)` float64 `points` mapped by a `(3, 3)` matrix."""
    m = torch.as_tensor(matrix, dtype=torch.float64, device=points.device)
    mapped = points @ m[:, :2].T + m[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def sample(image: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of `(C, H, W)` at `(h, w, 2)` positions in pixels (centres at +0.5); the edge is continued."""
    height, width = image.shape[1:]
    scale = torch.tensor([2.0 / width, 2.0 / height], dtype=torch.float64, device=points.device)
    grid = (points * scale - 1.0).to(image.dtype)
    return F.grid_sample(image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def shrink(image: Tensor, height: int, width: int) -> Tensor:
    """`(C, H, W)` made smaller by an antialiased bicubic filter; as it is where the size is the same."""
    if image.shape[1:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True, align_corners=False)[0]


def warp_to_frame(images: Tensor, quads: np.ndarray, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Put crops back to where their quads lie in the frame.

    Antialiased where the crop has more pixels than its quad. Source: ours; geometry as in STIT's inverse perspective.

    Args:
        images: `(n, C, S, S)` float, any range.
        quads: `(n, 4, 2)` pixels, order TL, BL, BR, TR.
        height, width: of the frame, pixels.

    Returns:
        The warped images `(n, C, H, W)`, zero outside their quads, and the coverage `(n, 1, H, W)` in [0, 1]: 0 within
        half a pixel of the edge of the quad and outside, 1 from a pixel further inside. Where it is above 0, the colour
        is interpolated between samples of the crop. Colours are not multiplied by it.

    Raises:
        ValueError: shapes do not fit each other.
    """
    check_shape("images", images, ("n", "C", images.shape[-1], images.shape[-1]))
    check_shape("quads", quads, (len(images), 4, 2))
    warped = images.new_zeros((len(images), images.shape[1], height, width))
    coverage = images.new_zeros((len(images), 1, height, width))
    for i, image in enumerate(images):
        x0, y0 = np.floor(quads[i].min(axis=0) - 1).astype(int).clip(0)
        x1, y1 = np.minimum(np.ceil(quads[i].max(axis=0) + 1).astype(int), (width, height))
        if x1 <= x0 or y1 <= y0:
            continue
        way = QuadWarp(quads[i], (x0, y0, x1, y1), image.device)
        inside = way.coverage(image.shape[-1]).to(image.dtype)
        warped[i, :, y0:y1, x0:x1] = way.apply(image) * (inside > 0)
        coverage[i, :, y0:y1, x0:x1] = inside
    return warped, coverage


class QuadWarp:
    """From the coordinates of one quad to a box of its frame: for many pictures, the way is found once.

    Args:
        quad: `(4, 2)` pixels of the frame, order TL, BL, BR, TR.
        box: x0, y0, x1, y1 pixels of the frame.
        device: of the pictures to come.
    """

    def __init__(self, quad: np.ndarray, box: tuple[int, int, int, int], device: torch.device | str = "cpu") -> None:
        self._box, self._device = box, device
        self._matrix = quad_to_crop_matrices(quad[None], 1)[0]
        self._width_px = float(np.linalg.norm(quad[3] - quad[0]) + np.linalg.norm(quad[2] - quad[1])) / 2
        self._height_px = float(np.linalg.norm(quad[1] - quad[0]) + np.linalg.norm(quad[2] - quad[3])) / 2
        self._grids: dict[int, Tensor] = {}

    def apply(self, image: Tensor) -> Tensor:
        """`(C, S, S)` over the quad to `(C, h, w)` over the box; beyond the quad its edge is continued.

        Antialiased where the picture has more pixels than the quad.
        """
        size = image.shape[-1]
        columns = min(size, max(2, round(2 * self._width_px)))
        rows = min(size, max(2, round(2 * self._height_px)))
        subpixels = 2 if size > min(self._width_px, self._height_px) * 1.001 else 1
        if subpixels not in self._grids:
            self._grids[subpixels] = torch.stack(self._unit(subpixels), dim=-1).mul_(2).sub_(1).float()
        grid = self._grids[subpixels].to(image.dtype)[None]
        small = shrink(image, rows, columns)[None]
        warped = F.grid_sample(small, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return F.avg_pool2d(warped, subpixels)[0] if subpixels > 1 else warped[0]

    def coverage(self, size: int) -> Tensor:
        """`(1, h, w)` float64 in [0, 1] for pictures of `size`: 0 within half a pixel of the edge of the quad and
        outside, 1 from a pixel further inside."""
        extent = torch.tensor([self._width_px, self._height_px], dtype=torch.float64, device=self._device)
        unit = torch.stack(self._unit(1), dim=-1)
        to_edge = torch.minimum(unit, 1.0 - unit) * extent - (0.5 * extent / size).clamp_min(0.5)
        return to_edge.clamp(0.0, 1.0).amin(dim=-1)[None]

    def _unit(self, subpixels: int) -> tuple[Tensor, Tensor]:
        """x and y of the box's (sub)pixels where the quad is the unit square, `(rows, columns)` float64 each."""
        x0, y0, x1, y1 = self._box
        x = x0 + (torch.arange((x1 - x0) * subpixels, dtype=torch.float64, device=self._device) + 0.5) / subpixels
        y = y0 + (torch.arange((y1 - y0) * subpixels, dtype=torch.float64, device=self._device) + 0.5) / subpixels
        across, down, depth = (x[None] * m[0] + (y * m[1] + m[2])[:, None] for m in self._matrix.tolist())
        return across.div_(depth), down.div_(depth)
