"""Where the face is: soft masks from landmarks, exact to fractions of a pixel so that their edge does not flicker."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_finite, check_shape

REGIONS: dict[str, frozenset[str]] = {
    "inner face": frozenset(),
    "face": frozenset({"forehead line"}),
    "face and forehead": frozenset({"forehead"}),
    "face, forehead and ears": frozenset({"forehead", "ears"}),
    "face, forehead and neck": frozenset({"forehead", "neck"}),
    "head and neck": frozenset({"forehead", "ears", "neck", "hair"}),
}
"""Choices of `region`. "inner face" ends at the brows; "face" is the oval of the mesh, up to just below the hair."""

# Outline of the mesh clockwise as seen in the picture, from the middle of the forehead over the right side to the chin.
_OVAL_478 = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_BROWS_478 = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
_CHIN_478, _FOREHEAD_478 = 152, 10
_SIDES_478 = (234, 454)
_JAW_68, _BROWS_68 = tuple(range(17)), tuple(range(17, 27))
_CHIN_68, _SIDES_68 = 8, (0, 16)
_MAX_GRID = 320
"""The distance to the outline is computed on at most about this many points a side and interpolated between them."""


def face_mask(
    landmarks: np.ndarray,
    height: int,
    width: int,
    *,
    region: str = "face",
    dilate: float = 0.0,
    feather: float = 0.1,
) -> Tensor:
    """Soft masks of the convex outline of a face region.

    Args:
        landmarks: `(n, P, 2)` pixels, P = 68 or 478 (468).
        height, width: of the masks, pixels.
        region: one of `REGIONS`.
        dilate: how far the outline moves outwards, in face heights (brows to chin); negative moves it inwards.
        feather: width of the ramp from 0 to 1, centred on the outline, in face heights.

    Returns:
        `(n, H, W)` float32 in [0, 1].

    Raises:
        ValueError: unknown region, negative feather, wrong landmarks.
    """
    check_shape("landmarks", landmarks, ("n", "P", 2))
    check_finite("landmarks", landmarks)
    if region not in REGIONS:
        raise ValueError(f"The region should be one of {', '.join(map(repr, REGIONS))}, but is {region!r}.")
    if not (np.isfinite(feather) and feather >= 0 and np.isfinite(dilate)):
        raise ValueError(f"feather should be 0 or more and dilate a number, but they are {feather} and {dilate}.")
    masks = torch.zeros((len(landmarks), height, width), dtype=torch.float32)
    for i, points in enumerate(np.asarray(landmarks, dtype=np.float64)):
        outline, face_height = region_outline(points, region)
        _draw_soft(masks[i], outline, dilate * face_height, max(feather * face_height, 1.0))
    return masks


def region_outline(points: np.ndarray, region: str) -> tuple[np.ndarray, float]:
    """Corner points `(E, 2)` of the convex outline of a region and the height of the face, brows to chin, in pixels.

    Args:
        points: `(P, 2)` pixels.
        region: one of `REGIONS`.
    """
    parts = REGIONS[region]
    brows, jaw, oval, chin, sides = _named_points(points)
    brow_line = brows.mean(axis=0)
    down = chin - brow_line
    face_height = max(float(np.linalg.norm(down)), 1e-6)
    across = sides[1] - sides[0]
    groups = [brows, jaw]
    if parts & {"forehead line", "forehead"}:
        groups.append(oval)
    if "forehead" in parts:
        upper = oval[((oval - brow_line) @ down) < 0]
        rise = 2.8 if "hair" in parts else 1.35
        elevation = ((upper - brow_line) @ down)[:, None] * down / face_height**2
        groups.append(upper + elevation * (rise - 1))
    if "ears" in parts:
        middle = sides.mean(axis=0)
        groups.append(np.concatenate([middle + (sides - middle) * 1.22 + down * shift for shift in (-0.25, 0.2)]))
    if "neck" in parts:
        groups.append(np.stack([chin + down * 0.45 + across * side for side in (-0.3, 0.3)]))
    return _convex_hull(np.concatenate(groups)), face_height


def outline_indices(num_landmarks: int) -> tuple[int, ...]:
    """Which landmarks lie on the outline of the face: the oval of the mesh, or jaw and brows of 68 points.

    Raises:
        ValueError: another number of landmarks.
    """
    if num_landmarks in (468, 478):
        return _OVAL_478
    if num_landmarks == 68:
        return (*_JAW_68, *_BROWS_68)
    raise ValueError(f"A face should have 68 landmarks or the 478 of the face mesh, but has {num_landmarks}.")


def _named_points(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Brows, jaw, whole oval, chin and the two sides of the face (at the height of the ears)."""
    if len(points) in (468, 478):
        oval = points[list(_OVAL_478)]
        brows = points[list(_BROWS_478)]
        chin, forehead = points[_CHIN_478], points[_FOREHEAD_478]
        lower = oval[((oval - points[list(_SIDES_478)].mean(axis=0)) @ (chin - forehead)) >= 0]
        return brows, np.concatenate([lower, points[list(_SIDES_478)]]), oval, chin, points[list(_SIDES_478)]
    if len(points) == 68:
        brows, jaw, chin = points[list(_BROWS_68)], points[list(_JAW_68)], points[_CHIN_68]
        brow_line = brows.mean(axis=0)
        forehead = brow_line + (brows - brow_line) * 0.9 - (chin - brow_line) * 0.35
        return brows, jaw, np.concatenate([jaw, brows, forehead]), chin, points[list(_SIDES_68)]
    raise ValueError(f"A face should have 68 landmarks or the 478 of the face mesh, but has {len(points)}.")


def _convex_hull(points: np.ndarray) -> np.ndarray:
    """`(E, 2)` corners of the convex hull, in order (monotone chain, Andrew 1979)."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]

    def half(sequence: np.ndarray) -> list[np.ndarray]:
        chain: list[np.ndarray] = []
        for point in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        return chain[:-1]

    return np.stack(half(ordered) + half(ordered[::-1])) if len(ordered) > 2 else ordered


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _draw_soft(mask: Tensor, outline: np.ndarray, dilate_px: float, ramp_px: float) -> None:
    """Write the soft inside of a convex `(E, 2)` outline into one `(H, W)` mask."""
    height, width = mask.shape
    reach = max(dilate_px, 0.0) + ramp_px + 2
    x0, y0 = np.floor(outline.min(axis=0) - reach).astype(int).clip(0)
    x1, y1 = np.minimum(np.ceil(outline.max(axis=0) + reach).astype(int), (width, height))
    if x1 <= x0 or y1 <= y0:
        return
    step = max(1, int(max(x1 - x0, y1 - y0) / _MAX_GRID))
    columns, rows = -(-(x1 - x0) // step), -(-(y1 - y0) // step)
    x = x0 + (torch.arange(columns, dtype=torch.float64) + 0.5) * step
    y = y0 + (torch.arange(rows, dtype=torch.float64) + 0.5) * step
    distance = _signed_distance(torch.from_numpy(outline), x, y, reach + step).float()
    if step > 1:
        distance = F.interpolate(distance[None, None], scale_factor=step, mode="bilinear", align_corners=False)[0, 0]
    inside = ((dilate_px - distance) / ramp_px + 0.5).clamp(0, 1)
    soft = inside * inside * (3 - 2 * inside)
    mask[y0:y1, x0:x1] = soft[: y1 - y0, : x1 - x0]


def _signed_distance(outline: Tensor, x: Tensor, y: Tensor, reach: float) -> Tensor:
    """`(rows, columns)` distance to a convex polygon in pixels, negative inside, too small only beyond `reach`."""
    edge = outline.roll(-1, dims=0) - outline
    length = edge.norm(dim=1).clamp_min(1e-9)
    normal = torch.stack([edge[:, 1], -edge[:, 0]], dim=1) / length[:, None]
    normal = normal * torch.sign(((outline - outline.mean(dim=0)) * normal).sum(dim=1, keepdim=True))
    offset = (outline * normal).sum(dim=1)
    distance = torch.full((len(y), len(x)), -torch.inf, dtype=torch.float64)
    to_line = torch.empty_like(distance)
    for (across, down), shift in zip(normal.tolist(), offset.tolist(), strict=True):
        torch.add((x * across)[None], (y * down - shift)[:, None], out=to_line)
        torch.maximum(distance, to_line, out=distance)
    row, column = torch.nonzero((distance > 0) & (distance <= reach), as_tuple=True)
    from_start_x, from_start_y = (at[:, None] - outline[:, axis] for axis, at in enumerate((x[column], y[row])))
    edge_x, edge_y = edge.T
    along = ((from_start_x * edge_x + from_start_y * edge_y) / length**2).clamp_(0, 1)
    from_start_x -= along * edge_x
    from_start_y -= along * edge_y
    squares = from_start_x.square_().addcmul_(from_start_y, from_start_y)
    distance[row, column] = squares.amin(dim=1).sqrt()
    return distance
