"""Parts of a picture, such as hair, clothes and background, by a mediapipe Tasks segmentation model of the user's."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .landmarks import explain_import_failure, import_mediapipe


class FaceSegmenter:
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
        self._mediapipe = import_mediapipe()
        self._segmenter: Any = _open(path)
        self._release = weakref.finalize(self, self._segmenter.close)
        self.labels: tuple[str, ...] = tuple(self._segmenter.labels)
        """Names of the parts in the order of `parts`; empty where the file does not tell."""

    def parts(self, picture: np.ndarray) -> np.ndarray:
        """`(C, H, W)` float32 in [0, 1]: how likely each pixel of an `(H, W, 3)` uint8 RGB picture is each part.

        Raises:
            ValueError: `picture` has another shape or type.
            RuntimeError: the segmenter has been closed.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
            raise ValueError(f"The picture should be (H, W, 3) uint8, but is {tuple(picture.shape)} {picture.dtype}.")
        if self._segmenter is None:
            raise RuntimeError("This FaceSegmenter has been closed; open a new one.")
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
        masks = self._segmenter.segment(image).confidence_masks
        height, width = picture.shape[:2]
        return np.stack([np.array(mask.numpy_view(), dtype=np.float32).reshape(height, width) for mask in masks])

    def close(self) -> None:
        """Free the native model. Calling it again does nothing."""
        self._release()
        self._segmenter = None

    def __enter__(self) -> FaceSegmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
