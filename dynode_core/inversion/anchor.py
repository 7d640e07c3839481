"""The keyframe that is found first, and from which all others start (ours).

A generator shows calm faces that look into the camera best, and a descent to a wide open mouth or closed eyes ends in
other faces than that of the person. So the calmest keyframe is the anchor, wherever in the clip it is.
"""

from __future__ import annotations

import numpy as np

from ..types import AlignedClip

_IGNORED = [0, *range(11, 19)]
"""mediapipe's blendshapes that make no face harder: "neutral", and where the eyes look."""
_TURNED_DEG = 30.0
"""A head turned so far counts like a wide open mouth."""


def calmest(aligned: AlignedClip, indices: np.ndarray) -> int:
    """The place in `indices` of the frame with the least expression and turn of the head.

    Frames without a face of their own come last; without blendshapes and pose it is 0.
    """
    track = aligned.track
    effort = np.zeros(len(indices))
    if track.blendshapes is not None:
        shapes = np.delete(track.blendshapes[indices], _IGNORED, axis=1)
        effort += np.square(shapes).sum(axis=1)
    if track.pose_deg is not None:
        effort += np.square(track.pose_deg[indices, :2] / _TURNED_DEG).sum(axis=1)
    effort[~track.detected[indices]] += effort.max() + 1
    return int(np.argmin(effort))
