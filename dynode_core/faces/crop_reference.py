"""The crop of the published FFHQ tools, step by step: slow, on bytes, for comparison.

Source: FFHQ alignment (Karras et al. 2019) as run by STIT (Tzaban et al. 2022): shrink by a whole factor (Lanczos),
cut, mirror and blur beyond the frame, sample bilinearly. Our `crop.crop` shows the same place; it filters better when
it shrinks and leaves pixels inside the frame alone.
"""

from __future__ import annotations

import numpy as np


def crop_reference(frame: np.ndarray, quad: np.ndarray, size: int, *, padding: bool = False) -> np.ndarray:
    """Crop one frame as the published tools do.

    Convention: `quad` has pixel centres at whole numbers (dlib's landmarks), unlike elsewhere in this package: the tool
    itself adds the half pixel, after shrinking.

    Args:
        frame: `(H, W, 3)` uint8.
        quad: `(4, 2)` pixels TL, BL, BR, TR.
        size: side of the crop, pixels.
        padding: mirror and blur beyond the frame; otherwise it is black there.

    Returns:
        `(S, S, 3)` uint8.
    """
    from PIL import Image

    quad = np.array(quad, dtype=np.float64)
    image = Image.fromarray(frame)
    diagonal = float(np.linalg.norm(quad[3] - quad[1]))
    factor = int(diagonal / size * 0.5)
    if factor > 1:
        image = image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.LANCZOS)
        quad, diagonal = quad / factor, diagonal / factor
    border = max(round(diagonal * 0.1), 3)
    low, high = np.floor(quad.min(axis=0)).astype(int) - border, np.ceil(quad.max(axis=0)).astype(int) + border
    box = (*np.maximum(low, 0).tolist(), *np.minimum(high, image.size).tolist())
    image, quad = image.crop(box), quad - box[:2]
    if padding:
        image, quad = _pad(np.asarray(image), quad, border, diagonal)
    corners = (quad + 0.5).ravel().tolist()
    return np.asarray(image.transform((size, size), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR))


def _pad(part: np.ndarray, quad: np.ndarray, border: int, diagonal: float):  # type: ignore[no-untyped-def]
    """Mirror `part` on all sides, blur towards the outside, fade into the median colour; (image, moved quad)."""
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    height, width = part.shape[:2]
    before = np.maximum(border - np.floor(quad.min(axis=0)).astype(int), 0)
    after = np.maximum(np.ceil(quad.max(axis=0)).astype(int) + border - (width, height), 0)
    if max(*before, *after) <= border - 4:
        return Image.fromarray(part), quad
    before, after = (np.maximum(amount, round(diagonal * 0.3)) for amount in (before, after))
    padded = np.pad(part.astype(np.float32), ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="reflect")
    height, width = padded.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    across = 1 - np.minimum(x / before[0], (width - 1 - x) / after[0])
    down = 1 - np.minimum(y / before[1], (height - 1 - y) / after[1])
    outside = np.maximum(across[None, :], down[:, None])[..., None]
    sigma = diagonal * 0.02
    blurred = gaussian_filter(padded, [sigma, sigma, 0])
    padded += (blurred - padded) * np.clip(outside * 3 + 1, 0, 1)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(outside, 0, 1)
    return Image.fromarray(np.clip(np.rint(padded), 0, 255).astype(np.uint8)), quad + before
