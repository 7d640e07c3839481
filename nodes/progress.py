"""Progress bar, live pictures and cancelling: what ComfyUI wants from long work."""

from __future__ import annotations

import time

import comfy.model_management
import comfy.utils
import numpy as np
from PIL import Image

PREVIEW_INTERVAL_S = 0.25
"""Updates that carry a picture are not throttled by ComfyUI, so this is where they are."""
PREVIEW_SIDE_PX = 512


class NodeProgress:
    """A `dynode_core.progress.Progress` for the node that is being executed.

    Every call raises `InterruptProcessingException` if the user pressed cancel.
    """

    def __init__(self) -> None:
        self._bar: comfy.utils.ProgressBar | None = None
        self._next_preview = 0.0

    def __call__(self, done: int, total: int, preview: np.ndarray | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)
        now = time.monotonic()
        picture = None
        if preview is not None and now >= self._next_preview:
            picture = ("JPEG", Image.fromarray(preview), PREVIEW_SIDE_PX)
            self._next_preview = now + PREVIEW_INTERVAL_S
        self._bar.update_absolute(done, total, picture)
