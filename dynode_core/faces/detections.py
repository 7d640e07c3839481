"""Every face in every frame of a clip, before anybody decides whose face is meant."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from ..layout import pictures_to_bytes
from ..progress import Progress, silent
from ..types import VideoClip
from .cuts import CutDetector
from .landmarks import Face, FaceLandmarker
from .preview import draw_faces
from .search import FaceSearch, same_face
from .sharpness import face_sharpness

Search = Literal["off", "when needed", "always"]
SEARCHES: tuple[str, ...] = get_args(Search)
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


def detect_faces(
    clip: VideoClip,
    detector: FaceDetector,
    *,
    search: Search = "when needed",
    points_path: Path | None = None,
    progress: Progress = silent,
) -> Detections:
    """Look for faces in every frame of `clip` and find its cuts on the way. Memory: 16 frames.

    With a search (it needs a `FaceLandmarker` as `detector`), every 8th frame and every frame after a cut is searched
    for small, dark and turned faces as `search` tells, and every face is followed forwards and backwards from
    where it was found through the frames in which one pass over the frame misses it. A face that only the search sees,
    and in one frame only, does not count.

    Args:
        clip: any number of frames.
        detector: finds faces in one picture.
        search: "off"; "when needed": in frames in which one pass finds no face, or in which one is lost
            that was there in the last 8 frames; "always": for faces of all people.
        points_path: YuNet's file, with which the search finds full profiles too; see `search`.
        progress: called once per frame.

    Raises:
        ValueError: `search` is unknown.
        FileNotFoundError, RuntimeError: see `FaceSearch`.
        Whatever `progress` raises to cancel.
    """
    if search not in SEARCHES:
        raise ValueError(f"The search for small faces is one of {', '.join(SEARCHES)}, but is {search!r}.")
    faces: list[list[Face]] = []
    searched: list[tuple[int, Face]] = []
    cuts = CutDetector()
    with ExitStack() as stack:
        finder = None
        if search != "off" and isinstance(detector, FaceLandmarker):
            finder = stack.enter_context(FaceSearch(detector.task_path, points_path))
        before = np.zeros((0, clip.height, clip.width, 3), dtype=np.uint8)
        shot_starts: list[bool] = []
        for start, frames in clip.chunks(_FRAMES_PER_READ):
            pictures = pictures_to_bytes(frames)
            for i, picture in enumerate(pictures):
                shot_starts.append(cuts.add(picture))
                known = list(detector.detect(picture))
                if finder is not None:
                    last = [] if shot_starts[-1] else faces[-1]
                    known += _follow(finder, picture, last, known)
                    if i == 0:
                        known = [finder.refit(picture, face) for face in known]
                    lost = last and len(known) < max(len(found) for found in faces[-_FRAMES_PER_READ:])
                    if (i == 0 or shot_starts[-1]) and (search == "always" or not known or lost):
                        new = finder.search(picture, known)
                        searched += [(start + i, face) for face in new]
                        known += new
                faces.append(known)
                preview = draw_faces(picture, known) if i == len(pictures) - 1 else None
                progress(start + i + 1, clip.num_frames, preview)
            if finder is not None:
                _follow_back(finder, np.concatenate([before, pictures]), faces, shot_starts)
                finder.forget()  # its frame is a view of the whole chunk
            first = start - len(before)
            for t in range(first, len(faces)):  # again for those of the chunk before, to which followed faces came
                picture = before[t - first] if t < start else pictures[t - start]
                faces[t] = [face if face.sharpness is not None else with_sharpness(face, picture) for face in faces[t]]
            before = pictures
    segments = cuts.segments()
    drop_unconfirmed(faces, searched, segments)
    return Detections(tuple(map(tuple, faces)), segments, clip.height, clip.width)


def with_sharpness(face: Face, picture: np.ndarray) -> Face:
    """The face with its sharpness in the `(H, W, 3)` uint8 picture."""
    return replace(face, sharpness=face_sharpness(picture, face.landmarks))


def drop_unconfirmed(faces: list[list[Face]], searched: list[tuple[int, Face]], segments: np.ndarray) -> None:
    """Take out faces that only the search saw, in one frame: hair, a lamp. A face is there before or after as well."""
    for t, found in searched:
        start, stop = segments[np.searchsorted(segments[:, 0], t, side="right") - 1].tolist()
        near = [s for s in (t - 1, t + 1) if start <= s < stop]
        if near and not any(same_face(found, other) for s in near for other in faces[s]):
            faces[t] = [face for face in faces[t] if face.landmarks is not found.landmarks]


def _follow(finder: FaceSearch, picture: np.ndarray, neighbours: list[Face], known: list[Face]) -> list[Face]:
    """Faces of a neighbouring frame that are in this one too but not yet `known`."""
    found: list[Face] = []
    for face in neighbours:
        if not any(same_face(face, other) for other in (*known, *found)):
            again = finder.near(picture, face)
            if again is not None and not any(same_face(again, other) for other in (*known, *found)):
                found.append(again)
    return found


def _follow_back(finder: FaceSearch, pictures: np.ndarray, faces: list[list[Face]], shot_starts: list[bool]) -> None:
    """Add to the last frames (of which `pictures` are at hand) the faces that were found later in the same shot."""
    first = len(faces) - len(pictures)
    for t in range(len(faces) - 2, first - 1, -1):
        if not shot_starts[t + 1]:
            faces[t] += _follow(finder, pictures[t - first], faces[t + 1], faces[t])
