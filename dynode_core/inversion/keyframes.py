"""Which frames to invert: where the face moves, the others are the trajectory's work (ours)."""

from __future__ import annotations

import numpy as np

from ..faces.quads import quad_sides_px
from ..spread import spread
from ..types import AlignedClip, FaceTrack
from .mesh_regions import UPPER_LOWER_LID, UPPER_LOWER_LIP

MOTION_PER_KEYFRAME = 0.025
"""Path length between keyframes, in sides of the quad (see `motion`)."""
MAX_GAP_S = 0.4
MAX_PER_SECOND = 4.5
"""With more motion than this affords, keyframes move apart evenly: each costs seconds on a CPU."""
_MIN_GAP_S = 0.055
_EXPRESSION_WEIGHT = 1.5


def choose_keyframes(aligned: AlignedClip, every: int = 0, max_keyframes: int = 0) -> np.ndarray:
    """`(K,)` int64 increasing frame indices, all with the face in view: `track.present`.

    The first and the last frame of each run of such frames within a shot are among them, so that no shot is guessed
    from another one.

    Args:
        every: a keyframe each so many frames of a run; 0 chooses by motion.
        max_keyframes: upper bound on K; 0 means none. With too much motion, or too many runs, the spacing grows evenly.
    Raises:
        ValueError: fewer than two frames, or with the face in view, or bounds below zero.
    """
    num_frames = aligned.clip.num_frames
    if num_frames < 2:
        raise ValueError(
            f"A trajectory needs a clip of at least 2 frames, but this clip has {num_frames}. "
            "To edit a single picture, repeat it (core node Repeat Image Batch, amount 2)."
        )
    if every < 0 or max_keyframes < 0 or max_keyframes == 1:
        raise ValueError(
            f"every = {every} and max_keyframes = {max_keyframes}: use 0 for automatic, else at least 1 and 2."
        )
    runs = present_runs(aligned.track)
    in_view = sum(stop - start for start, stop in runs)
    if in_view < 2:
        raise ValueError(
            f"A trajectory needs the face in at least 2 frames, but it is in view in {in_view} of {num_frames}. "
            "Follow another face, trim the clip to where it can be seen, or, if it is in full profile elsewhere, "
            "switch edit_profiles on."
        )
    if every:
        chosen = np.concatenate([np.arange(start, stop, every) for start, stop in runs])
    else:
        chosen = _by_motion(motion(aligned), aligned.clip.frame_times, runs)
    ends = np.unique([(start, stop - 1) for start, stop in runs])
    chosen = np.union1d(chosen, ends)
    if max_keyframes and len(chosen) > max_keyframes:
        chosen = _thinned(chosen, ends, max_keyframes)
    return chosen.astype(np.int64)


def present_runs(track: FaceTrack) -> list[tuple[int, int]]:
    """First frame and frame after the last of each stretch of a shot in which the face is in the picture."""
    runs = []
    for start, stop in track.shots.tolist():
        in_view = track.in_view[start:stop]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], in_view, [False]]).astype(np.int8)))
        runs += [(start + int(a), start + int(b)) for a, b in edges.reshape(-1, 2)]
    return runs


def _thinned(chosen: np.ndarray, ends: np.ndarray, limit: int) -> np.ndarray:
    """`limit` of the `chosen` frames, evenly spread, with as many `ends` of runs as fit."""
    even = chosen[spread(len(chosen), limit)]
    if len(ends) >= limit:
        return ends[spread(len(ends), limit)]
    for end in np.setdiff1d(ends, even):
        free = np.flatnonzero(~np.isin(even, ends))
        even[free[np.abs(even[free] - end).argmin()]] = end
    return np.unique(even)


def motion(aligned: AlignedClip) -> np.ndarray:
    """`(T,)` float64: how far the face moved inside its crop since the frame before, in sides of the quad.

    The mean displacement of all landmarks, plus the change of the eyes' and the mouth's opening, which matter more
    than their size suggests. Frames without a detection count as still.
    """
    landmarks = crop_coordinates(aligned)
    moved = np.linalg.norm(np.diff(landmarks, axis=0), axis=2).mean(axis=1)
    if landmarks.shape[1] >= 468:
        openings = np.stack(
            [
                np.mean([np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1) for a, b in pairs], axis=0)
                for pairs in (UPPER_LOWER_LIP, UPPER_LOWER_LID)
            ]
        )
        moved = moved + _EXPRESSION_WEIGHT * np.abs(np.diff(openings, axis=1)).sum(axis=0)
    return np.concatenate([[0.0], moved])


def _by_motion(moved: np.ndarray, times: np.ndarray, runs: list[tuple[int, int]]) -> np.ndarray:
    """Frame indices, the first of each run among them, at most MAX_PER_SECOND."""
    affordable = sum(2 + MAX_PER_SECOND * (times[stop - 1] - times[start]) for start, stop in runs)
    spacing = MOTION_PER_KEYFRAME
    while len(chosen := _spaced(moved, times, runs, spacing)) > affordable:
        spacing *= 1.1
    return chosen


def _spaced(moved: np.ndarray, times: np.ndarray, runs: list[tuple[int, int]], spacing: float) -> np.ndarray:
    chosen = []
    for start, stop in runs:
        chosen.append(start)
        path = 0.0
        for i in range(start + 1, stop):
            path += moved[i]
            gap = times[i] - times[chosen[-1]]
            if (path >= spacing and gap >= _MIN_GAP_S) or gap >= MAX_GAP_S:
                chosen.append(i)
                path = 0.0
    return np.array(chosen)


def crop_coordinates(aligned: AlignedClip, frames: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Landmarks `(T, P, 2)`, of all or of some `frames`, in units of the quad's side, relative to its centre and turned
    with it."""
    quads = aligned.quads[frames]
    sides = quad_sides_px(quads)
    centre = quads.mean(axis=1)
    right = (quads[:, 3] - quads[:, 0]) / sides[:, None]
    down = (quads[:, 1] - quads[:, 0]) / sides[:, None]
    offset = (aligned.track.landmarks[frames] - centre[:, None]) / sides[:, None, None]
    return np.stack([(offset * right[:, None]).sum(2), (offset * down[:, None]).sum(2)], axis=2)
