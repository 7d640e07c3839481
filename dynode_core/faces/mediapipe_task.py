"""What all models that run inside mediapipe share: how it is loaded, which pictures they take, how they are freed."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, TypeVar

import numpy as np

_SYSTEM_LIBRARIES = {
    "libGLESv2": "libgles2",
    "libEGL": "libegl1",
    "libGL.so": "libgl1",
    "libgthread": "libglib2.0-0",
}
"""Libraries that mediapipe and OpenCV load, and the Debian packages that hold them."""


def import_mediapipe() -> ModuleType:
    """The mediapipe module.

    Raises:
        RuntimeError: it, or a library of the system that it needs, is missing; says which.
    """
    try:
        return importlib.import_module("mediapipe")
    except (ImportError, OSError) as error:
        raise RuntimeError(explain_import_failure("mediapipe", error)) from error


def explain_import_failure(package: str, error: BaseException) -> str:
    """What to install when `package` (mediapipe or cv2) does not load."""
    text = str(error)
    for library, debian in _SYSTEM_LIBRARIES.items():
        if library in text:
            return (
                f"{package} needs the system library {library}, which is not installed ({text}). On Debian or Ubuntu, "
                f"{debian} brings it; install all that mediapipe wants: sudo apt-get install libgl1 libegl1 libgles2"
            )
    return (
        f"{package} could not be imported ({text or type(error).__name__}). mediapipe brings it: "
        "python -m pip install mediapipe"
    )


T = TypeVar("T", bound="MediapipeTask")


class MediapipeTask:
    """A native model of mediapipe Tasks. Use as a context manager, or call `close`.

    Args:
        open_task: gives what `create_from_options` of mediapipe gives; called once mediapipe has been imported.
    """

    def __init__(self, open_task: Callable[[], Any]) -> None:
        self._mediapipe = import_mediapipe()
        self._task: Any = open_task()
        # Its own destructor fails when the interpreter has begun to shut down; this runs before that.
        self._release = weakref.finalize(self, self._task.close)

    def _image(self, picture: np.ndarray) -> Any:
        """`(H, W, 3)` uint8 RGB as mediapipe wants it.

        Raises:
            ValueError: `picture` has another shape or type.
            RuntimeError: the model has been closed.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
            raise ValueError(f"The picture should be (H, W, 3) uint8, but is {tuple(picture.shape)} {picture.dtype}.")
        if self._task is None:
            raise RuntimeError(f"This {type(self).__name__} has been closed; open a new one.")
        return self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))

    def close(self) -> None:
        """Free the native model. Calling it again does nothing."""
        self._release()
        self._task = None

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
