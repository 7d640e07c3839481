"""Which frames show the face in full profile, and leaving them alone.

Generators of FFHQ know no profiles: what they make of one is no face. The frames are found and followed all the same,
so that users see where they are and may ask for them. Source: ours.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..types import FaceTrack

FULL_PROFILE_DEG = 65.0
"""Turned further than this where no mesh fits, a face counts as a full profile; meshes fit up to about 62 degrees."""
_SHORTEST_S = 0.5
"""A face that is seen for less time than this between two profiles counts as turned away too."""


def full_profiles(track: FaceTrack) -> np.ndarray:
    """`(T,)` bool: frames whose face was found turned too far for a mesh; none where poses are not known."""
    if track.pose_deg is None:
        return np.zeros(len(track.detected), dtype=bool)
    return track.detected & ~track.is_fitted & (np.abs(track.pose_deg[:, 0]) > FULL_PROFILE_DEG)


def _with_gaps(profiles: np.ndarray, track: FaceTrack) -> np.ndarray:
    """The same, and the frames in which nothing was found between two of them in a shot, or at its ends beside one:
    there the head is turned further away."""
    profiles = profiles.copy()
    for start, stop in track.shots.tolist():
        found = (start + np.flatnonzero(track.detected[start:stop])).tolist()
        for before, after in pairwise([start - 1, *found, stop]):
            beside = [profiles[t] for t in (before, after) if start <= t < stop]
            if beside and all(beside):
                profiles[before + 1 : after] = True
    return profiles


def without_profiles(track: FaceTrack, frame_times: np.ndarray) -> FaceTrack:
    """The track with the face counted as not present in frames in full profile, which then stay as they are.

    So do stretches between two profiles that are too short for anything to fade in and out.

    Args:
        track: of T frames.
        frame_times: `(T,)` seconds.

    Raises:
        ValueError: no frame is left.
    """
    profiles = _with_gaps(full_profiles(track), track)
    if not profiles.any():
        return track
    present = track.in_view & ~profiles
    for start, stop in track.shots.tolist():
        changes = start + 1 + np.flatnonzero(np.diff(present[start:stop]))
        for first, end in pairwise([start, *changes.tolist(), stop]):
            between = (first > start and profiles[first - 1]) and (end < stop and profiles[end])
            if present[first] and between and frame_times[end] - frame_times[first - 1] < _SHORTEST_S:
                present[first:end] = False
    if not present.any():
        raise ValueError(
            f"The face is in full profile in all {int((track.in_view & profiles).sum())} frames that show it, and face "
            "generators know no profiles. Use a clip in which it also looks towards the camera, or switch "
            "edit_profiles on and see what becomes of it."
        )
    return replace(track, present=present)
