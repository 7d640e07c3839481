"""Parts of a picture, such as hair, clothes and background, by a mediapipe Tasks segmentation model of the user's."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from .mediapipe_task import MediapipeTask, explain_import_failure


class FaceSegmenter(MediapipeTask):
    """Says of every pixel how likely it belongs to each part. Use as a context manager, or call `close`.

    Any mediapipe image segmenter works, among them `selfie_multiclass_256x256.tflite` (background, hair, body-skin,
    face-skin, clothes, others) and `selfie_segmenter.tflite` (the person). None is on PyPI; the user brings the file.

    Args:
        model_path: a `.tflite` file with the metadata that mediapipe Tasks wants.

    Raises:
        FileNotFoundError: no file at `model_path`.
        RuntimeError: mediapipe or one of its system libraries is missing, or it cannot use the file.
    """

    def __init__(self, model_path: str | Path) -> None:
        path = Path(model_path)
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no segmentation model at {path}. Put one made for mediapipe Tasks there, such as "
                "selfie_multiclass_256x256.tflite, or choose none."
            )
        self.model_path = path
        super().__init__(functools.partial(_open, path))
        self.labels: tuple[str, ...] = tuple(self._task.labels)
        """Names of the parts in the order of `parts`; empty where the file does not tell."""

    def parts(self, picture: np.ndarray) -> np.ndarray:
        """`(C, H, W)` float32 in [0, 1]: how likely each pixel of an `(H, W, 3)` uint8 RGB picture is each part.

        Raises:
            ValueError: `picture` has another shape or type.
            RuntimeError: the segmenter has been closed.
        """
        image = self._image(picture)
        masks = self._task.segment(image).confidence_masks
        height, width = picture.shape[:2]
        return np.stack([np.array(mask.numpy_view(), dtype=np.float32).reshape(height, width) for mask in masks])


def _open(path: Path) -> Any:
    try:
        from mediapipe.tasks.python import BaseOptions, vision
    except (ImportError, OSError) as error:
        raise RuntimeError(explain_import_failure("mediapipe", error)) from error
    try:
        options = vision.ImageSegmenterOptions(
            base_options=BaseOptions(model_asset_buffer=path.read_bytes()),
            running_mode=vision.RunningMode.IMAGE,
            output_confidence_masks=True,
            output_category_mask=False,
        )
        return vision.ImageSegmenter.create_from_options(options)
    except Exception as error:  # mediapipe raises FileNotFoundError where metadata are missing
        raise RuntimeError(
            f"mediapipe cannot use {path.name} to tell the parts of a picture: {error}. Take a segmentation model made "
            "for mediapipe Tasks (a .tflite file with metadata), such as selfie_multiclass_256x256.tflite."
        ) from error
