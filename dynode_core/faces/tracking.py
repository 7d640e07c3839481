"""Follow one face through a clip: link detections over time, choose a track, fill the frames without a detection."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from ..progress import Progress, silent
from ..types import FaceTrack, VideoClip
from .detections import Detections, FaceDetector, detect_faces
from .landmarks import NUM_BLENDSHAPES, Face
from .smoothing import fill_missing

Pick = Literal["largest", "most central", "left to right"]
PICKS: tuple[str, ...] = get_args(Pick)

_REACH = 0.6
"""How far a face may move from one frame to the next, in face sizes."""
_REACH_PER_FRAME = 0.1
"""What each frame without a detection adds to it."""
_MAX_REACH = 1.5
_MAX_GROWTH = 1.8
_MIN_SHARE = 0.3
"""Tracks shorter than this share of the longest one are not counted when faces are ordered by place."""
_BRIEF_S = 0.3
_AHEAD_DEG = 45.0
_AWAY_AFTER_S = 1.0
"""So far in time from every detection in its shot, a face counts as not in the picture."""


@dataclass
class Track:
    """One face in one shot: its detections by frame number, in order."""

    faces: dict[int, Face] = field(default_factory=dict)

    @property
    def last_frame(self) -> int:
        return next(reversed(self.faces))

    @property
    def presence_px(self) -> float:
        """Sum of the sizes over the frames: large for a face that is large, or long in view."""
        return sum(face.size_px for face in self.faces.values())

    @property
    def center(self) -> np.ndarray:
        """`(2,)` mean centre of the boxes, pixels."""
        return np.mean([_center(face) for face in self.faces.values()], axis=0)

    def distance_px(self, hint: np.ndarray) -> float:
        """Mean distance of its centres from the hinted boxes, `(1 or T, 4)`; 0 inside, infinite if there is no hint."""
        distances = []
        for t, face in self.faces.items():
            box = hint[t if len(hint) > 1 else 0]
            if np.isfinite(box).all():
                center = _center(face)
                beyond = np.maximum(np.maximum(box[:2] - center, center - box[2:]), 0)
                distances.append(float(np.linalg.norm(beyond)))
        return float(np.mean(distances)) if distances else float("inf")


_Chosen = tuple[int, int, Track | None]
"""First frame of a shot, frame after its last one, and the face in it."""


def link_faces(detections: Detections, start: int, stop: int) -> list[Track]:
    """Tracks of the frames start..stop - 1 (one shot), each face in exactly one track.

    Pairs of track and face are taken greedily, nearest first, where the distance of their centres, in face sizes, is
    within reach and the size does not jump.
    """
    tracks: list[Track] = []
    for t in range(start, stop):
        pairs = []
        for i, track in enumerate(tracks):
            for j, face in enumerate(detections.faces[t]):
                distance = _distance(track, face, t)
                if distance is not None:
                    pairs.append((distance, i, j))
        used_tracks: set[int] = set()
        used_faces: set[int] = set()
        for _, i, j in sorted(pairs):
            if i not in used_tracks and j not in used_faces:
                tracks[i].faces[t] = detections.faces[t][j]
                used_tracks.add(i)
                used_faces.add(j)
        for j, face in enumerate(detections.faces[t]):
            if j not in used_faces:
                tracks.append(Track({t: face}))
    return tracks


def order_tracks(
    tracks: list[Track], pick: Pick, height: int, width: int, hint: np.ndarray | None = None
) -> list[Track]:
    """The tracks of one shot in the order in which `face_index` counts them; see `choose_track`."""
    if hint is not None and any(track.distance_px(hint) < np.inf for track in tracks):
        return sorted(tracks, key=lambda track: (track.distance_px(hint), -track.presence_px))
    if pick == "largest":
        return sorted(tracks, key=lambda track: -track.presence_px)
    longest = max((len(track.faces) for track in tracks), default=0)
    counted = [track for track in tracks if len(track.faces) >= _MIN_SHARE * longest]
    if pick == "most central":
        middle = np.array([width, height]) / 2
        return sorted(counted, key=lambda track: float(np.linalg.norm(track.center - middle)))
    if pick == "left to right":
        return sorted(counted, key=lambda track: float(track.center[0]))
    raise ValueError(f"The face is picked by one of {', '.join(PICKS)}, but {pick!r} was asked for.")


def track_face(
    clip: VideoClip,
    landmarker: FaceDetector,
    *,
    pick: Pick = "largest",
    face_index: int = 0,
    progress: Progress = silent,
) -> FaceTrack:
    """Detect, link and choose one face of `clip`; see `choose_track`."""
    detections = detect_faces(clip, landmarker, progress=progress)
    return choose_track(detections, clip.frame_times, pick=pick, face_index=face_index)


def choose_track(
    detections: Detections,
    frame_times: np.ndarray,
    *,
    pick: Pick = "largest",
    face_index: int = 0,
    hint: np.ndarray | None = None,
) -> FaceTrack:
    """One face over all frames, chosen anew in each shot.

    A frame without a detection gets landmarks interpolated in time between its neighbours in the same shot. A shot
    without such a face holds the landmarks of the nearest shot, and there `present` is False, as it is where the face
    was last seen, or is next seen, more than a second away.

    Args:
        detections: of all T frames.
        frame_times: `(T,)` seconds.
        pick: the order in which faces are counted.
        face_index: number of the face in that order, from 0.
        hint: `(1, 4)` or `(T, 4)` boxes x0, y0, x1, y1 in pixels (see `hints`), NaN where there is none: the faces
            nearest to them come first. Shots without a hint go by `pick`.

    Raises:
        ValueError: `pick` is unknown, no shot has `face_index` + 1 faces, or the hint does not fit the clip.
    """
    if hint is not None and hint.shape not in ((1, 4), (detections.num_frames, 4)):
        raise ValueError(
            f"The hint should be one box or one per frame, (1, 4) or ({detections.num_frames}, 4), but is {hint.shape}."
        )
    if pick not in PICKS:
        raise ValueError(f"The face is picked by one of {', '.join(PICKS)}, but {pick!r} was asked for.")
    chosen: list[_Chosen] = []
    most = 0
    for start, stop in detections.segments.tolist():
        tracks = order_tracks(link_faces(detections, start, stop), pick, detections.height, detections.width, hint)
        most = max(most, len(tracks))
        chosen.append((start, stop, tracks[face_index] if 0 <= face_index < len(tracks) else None))
    if all(track is None for _, _, track in chosen):
        raise ValueError(_explain_nothing(detections, most, face_index))
    return _fill(detections.num_frames, chosen, frame_times)


def _explain_nothing(detections: Detections, most: int, face_index: int) -> str:
    searched = f"{detections.num_frames} frame{'s' if detections.num_frames > 1 else ''}"
    if most == 0:
        return (
            f"No face was found in any of the {searched} searched (0 to {detections.num_frames - 1}, "
            f"{detections.width} x {detections.height} px). Use a clip in which a face is in view and at least about "
            "40 px high, trim it to such a part, or choose the mode that crops without a face."
        )
    return (
        f"Face {face_index} was asked for (counted from 0), but at most {most} face{'s are' if most > 1 else ' is'} "
        f"in view in the {searched} searched. Set face_index to {most - 1} or less."
    )


def _fill(num_frames: int, chosen: list[_Chosen], frame_times: np.ndarray) -> FaceTrack:
    """Put the chosen tracks of all shots on one time line."""
    faces = {
        t: face
        for _, _, track in chosen
        if track is not None
        for t, face in without_brief_poses(track.faces, frame_times).items()
    }
    sample = next(iter(faces.values()))
    with_pose = all(face.pose_deg is not None for face in faces.values())
    landmarks = np.zeros((num_frames, *sample.landmarks.shape))
    pose = np.zeros((num_frames, 3 if with_pose else 0))
    scores = np.zeros(num_frames, dtype=np.float32)
    detected, fitted = np.zeros(num_frames, dtype=bool), np.zeros(num_frames, dtype=bool)
    sharpness = np.full(num_frames, np.nan, dtype=np.float32)
    for t, face in faces.items():
        sharpness[t] = np.nan if face.sharpness is None else face.sharpness
        landmarks[t], scores[t], detected[t], fitted[t] = face.landmarks, face.score, True, face.fitted
        if with_pose:
            pose[t] = face.pose_deg
    values = np.concatenate([landmarks.reshape(num_frames, -1), pose], axis=1)
    values = _filled(values, detected, chosen, frame_times)
    points = values[:, : landmarks[0].size].reshape(landmarks.shape)
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return FaceTrack(
        landmarks=points,
        boxes=boxes,
        scores=scores,
        detected=detected,
        blendshapes=_blendshapes(num_frames, faces, chosen, frame_times),
        pose_deg=values[:, landmarks[0].size :].astype(np.float32) if with_pose else None,
        present=_present(detected, chosen, frame_times),
        segments=np.array([(start, stop) for start, stop, _ in chosen], dtype=np.int64),
        sharpness=None if np.isnan(sharpness).all() else sharpness,
        fitted=fitted,
    )


def without_brief_poses(faces: dict[int, Face], frame_times: np.ndarray) -> dict[int, Face]:
    """The faces of one track, by frame, without posed ones that stand for less than `_BRIEF_S` between fitted ones and
    look ahead: between two meshes of the person, interpolation is nearer to the truth than the mesh of a mean face."""
    fitted = [t for t, face in faces.items() if face.fitted]
    brief = {
        t
        for before, after in pairwise(fitted)
        if frame_times[after] - frame_times[before] < _BRIEF_S
        for t in range(before + 1, after)
    }
    return {t: face for t, face in faces.items() if face.fitted or t not in brief or not _looks_ahead(face)}


def _looks_ahead(face: Face) -> bool:
    return face.pose_deg is not None and abs(float(face.pose_deg[0])) < _AHEAD_DEG


def _blendshapes(
    num_frames: int, faces: dict[int, Face], chosen: list[_Chosen], times: np.ndarray
) -> np.ndarray | None:
    """`(T, 52)` float32; None unless all meshes that were fitted have them. Posed ones never do."""
    fitted = {t: face.blendshapes for t, face in faces.items() if face.fitted}
    measured = {t: shapes for t, shapes in fitted.items() if shapes is not None}
    if not measured or len(measured) < len(fitted):
        return None
    values, known = np.zeros((num_frames, NUM_BLENDSHAPES)), np.zeros(num_frames, dtype=bool)
    for t, shapes in measured.items():
        values[t], known[t] = shapes, True
    return _filled(values, known, chosen, times).astype(np.float32)


def _filled(values: np.ndarray, known: np.ndarray, chosen: list[_Chosen], times: np.ndarray) -> np.ndarray:
    """`(T, V)` with the frames that are not `known` interpolated within each shot; a shot without any holds those of
    the nearest frame that has some."""
    values, have = values.copy(), known.copy()
    for start, stop, _ in chosen:
        if known[start:stop].any():
            values[start:stop] = fill_missing(values[start:stop], known[start:stop], times[start:stop])
            have[start:stop] = True
    return values[_nearest_known(have)]


def _present(detected: np.ndarray, chosen: list[_Chosen], frame_times: np.ndarray) -> np.ndarray:
    """`(T,)` bool: frames within `_AWAY_AFTER_S` of a detection in the same shot."""
    present = np.zeros(len(detected), dtype=bool)
    for start, stop, track in chosen:
        if track is not None:
            times = frame_times[start:stop]
            nearest = times[_nearest_known(detected[start:stop])]
            present[start:stop] = np.abs(times - nearest) <= _AWAY_AFTER_S
    return present


def _nearest_known(known: np.ndarray) -> np.ndarray:
    """`(T,)` int64: for each frame the nearest one that is `known`."""
    have = np.flatnonzero(known)
    frames = np.arange(len(known))
    after = np.searchsorted(have, frames).clip(0, len(have) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(have[after] - frames) < np.abs(have[before] - frames), have[after], have[before])


def _center(face: Face) -> np.ndarray:
    box = face.box
    return (box[:2] + box[2:]) / 2


def _distance(track: Track, face: Face, t: int) -> float | None:
    """Distance of a face from the end of a track in face sizes; None where they cannot be the same face."""
    gap = t - track.last_frame
    last = track.faces[track.last_frame]
    size = max(last.size_px, 1e-6)
    growth = max(face.size_px / size, size / max(face.size_px, 1e-6))
    distance = float(np.linalg.norm(_center(face) - _center(last))) / size
    reach = min(_REACH + _REACH_PER_FRAME * (gap - 1), _MAX_REACH)
    return distance if distance <= reach and growth <= _MAX_GROWTH else None
