"""The mesh of a mean face, turned so that its eyes, nose and mouth lie on five given points (ours).

Where no mesh can be fitted to the picture, as in full profile, this says where a face lies, how it is turned and,
about, where its outline runs. `data/mean_face.safetensors` is the mean of generated faces (scripts/make_mean_face.py).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .five_points import five_points
from .landmarks import Face, pose_from_matrix
from .point_detector import FivePoints

MEAN_FACE_FILE = Path(__file__).parent / "data" / "mean_face.safetensors"
_FOCAL_LENGTH = 1.0
"""In larger sides of the picture: a view of 53 degrees, about mediapipe's."""
_MOST_MISFIT = 0.16
"""Mean distance of the posed face's points from the given ones, in their larger extent. Profiles of a real clip have up
to .14, points of the same clip that lead to wrong poses .17 and more, random points .25 in the middle."""
_NODS_BELOW_DEG, _PROFILE_DEG = 60.0, 80.0
_TO_CAMERA = np.diag([1.0, -1.0, -1.0])
"""From y up and z towards the viewer (mediapipe's heads) to OpenCV's y down and z away."""


@functools.cache
def mean_face() -> np.ndarray:
    """`(478, 3)` float64: x to the right edge of the picture, y up, z towards the viewer, looking straight at them; the
    middle of the five points is 0 and the eyes are 1 apart."""
    return load_file(MEAN_FACE_FILE)["mesh"].astype(np.float64)


def posed_face(seen: FivePoints, height: int, width: int) -> Face:
    """The face with the score of `seen`, without blendshapes, its mesh posed on the five points.

    Args:
        seen: five points in a picture of `height` x `width` pixels.

    Raises:
        ValueError: no pose brings a face near the points.
    """
    import cv2

    focal = _FOCAL_LENGTH * max(width, height)
    camera = np.diag([focal, focal, 1.0])
    middle = seen.points.mean(axis=0)  # the camera looks at the face: yaw does not depend on its place in the picture
    mesh = mean_face()
    model, points = five_points(mesh), np.ascontiguousarray(seen.points - middle, dtype=np.float64)
    try:
        found, turn, shift = cv2.solvePnP(model, points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if found:
            turn, shift = cv2.solvePnPRefineLM(model, points, camera, None, turn, shift)
    except cv2.error:
        found = False
    if not found or not (np.isfinite(turn).all() and np.isfinite(shift).all() and shift[2, 0] > 0):
        raise ValueError(f"The five points {seen.points.round(1).tolist()} are not those of a face.")
    landmarks = cv2.projectPoints(mesh, turn, shift, camera, None)[0].reshape(-1, 2)
    misfit = np.linalg.norm(five_points(landmarks) - points, axis=1).mean() / np.ptp(points, axis=0).max()
    if not misfit <= _MOST_MISFIT:
        raise ValueError(
            f"The five points {seen.points.round(1).tolist()} are not those of a face: a mean face, turned any way, "
            f"lies {misfit:.0%} of their extent beside them."
        )
    landmarks += middle
    pose = pose_from_matrix(_TO_CAMERA @ cv2.Rodrigues(turn)[0])
    return Face(landmarks, seen.score, pose_deg=_without_nod(pose), fitted=False)


def _without_nod(pose_deg: np.ndarray) -> np.ndarray:
    """In profile, nod and tilt turn the head about the same axis and only their sum is seen: all of it is tilt."""
    yaw, pitch, roll = pose_deg.tolist()
    share = float(np.clip((abs(yaw) - _NODS_BELOW_DEG) / (_PROFILE_DEG - _NODS_BELOW_DEG), 0, 1))
    return np.array([yaw, (1 - share) * pitch, roll - np.sign(yaw) * share * pitch], dtype=np.float32)
