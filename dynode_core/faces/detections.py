"""Every face in every frame of a clip, before anybody decides whose face is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..layout import pictures_to_bytes
from ..progress import Progress, silent
from ..types import VideoClip
from .cuts import CutDetector
from .landmarks import Face
from .preview import draw_faces

_FRAMES_PER_READ = 8


class FaceDetector(Protocol):
    """Anything that finds faces in one picture, such as `FaceLandmarker`."""

    def detect(self, frame: np.ndarray) -> list[Face]:
        """Faces of an `(H, W, 3)` uint8 picture."""
        ...


@dataclass(frozen=True)
class Detections:
    """The faces of all T frames and the shots they lie in."""

    faces: tuple[tuple[Face, ...], ...]
    """For each frame its faces."""
    segments: np.ndarray
    """`(S, 2)` int64: first frame and frame after the last one of each shot, in order, without gaps."""
    height: int
    width: int

    @property
    def num_frames(self) -> int:
        return len(self.faces)


def detect_faces(clip: VideoClip, detector: FaceDetector, *, progress: Progress = silent) -> Detections:
    """Look for faces in every frame of `clip` and find its cuts on the way. Memory: 8 frames.

    Raises:
        Whatever `progress` raises to cancel.
    """
    faces: list[tuple[Face, ...]] = []
    cuts = CutDetector()
    for start, frames in clip.chunks(_FRAMES_PER_READ):
        pictures = pictures_to_bytes(frames)
        for i, picture in enumerate(pictures):
            found = tuple(detector.detect(picture))
            faces.append(found)
            cuts.add(picture)
            done = start + i + 1
            preview = draw_faces(picture, found) if i == len(pictures) - 1 else None
            progress(done, clip.num_frames, preview)
    return Detections(tuple(faces), cuts.segments(), clip.height, clip.width)
