"""How usable the face is in each frame, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import AlignedClip, FaceTrack
from .align import has_face
from .profiles import full_profiles
from .quads import quad_sides_px, quads_to_axes

_PROFILE_DEG, _TILTED_DEG = 45.0, 45.0
_SMALL_PX = 64.0
_CUT_OFF = 0.85
LEAST_FOUND = 0.2
"""Of the frames that should show the face (see `check_found`): below, most of its path would be guessed."""
_BLURRED = 0.74
"""Sharpness below this share of the median of its shot counts as motion blur. In our
footage frames with visible blur have 0.70 to 0.74; sharp faces vary, with expression and light, from 0.76 up."""


@dataclass(frozen=True)
class FrameQuality:
    """One number per frame; T frames."""

    detected: np.ndarray
    """`(T,)` bool."""
    present: np.ndarray
    """`(T,)` bool: False where the face is not in the picture."""
    side_px: np.ndarray
    """`(T,)` float64: side of the quad."""
    roll_deg: np.ndarray
    """`(T,)` float64 rotation of the quad, > 0 clockwise."""
    yaw_deg: np.ndarray
    """`(T,)` float64; NaN where unknown."""
    inside: np.ndarray
    """`(T,)` float64 share of the landmarks inside the frame."""
    sharpness: np.ndarray
    """`(T,)` float64: fine detail of the face, 1 at the median of its shot; NaN where unknown."""
    fitted: np.ndarray
    """`(T,)` bool: False where the outline of the face is guessed; see `FaceTrack.fitted`."""
    profile: np.ndarray
    """`(T,)` bool: in full profile; see `profiles.full_profiles`."""
    cuts: np.ndarray
    """`(S - 1,)` int64: first frames of all shots but the first."""

    def problems(self) -> dict[str, np.ndarray]:
        """Frame numbers by problem, what to expect in brackets; problems that do not occur are left out."""
        seen = self.present
        found = {
            "Face not in the picture, or turned away (these frames stay as they are)": ~seen & ~self.profile,
            "In full profile (these frames stay as they are; edit_profiles would include them)": ~seen & self.profile,
            "Not found, place taken from the frames around": seen & ~self.detected,
            "Only eyes, nose and mouth found, outline guessed (turned, dark or covered)": seen
            & self.detected
            & ~self.fitted,
            f"Profile view, turned by more than {_PROFILE_DEG:.0f} degrees (less like the person)": seen
            & (np.abs(self.yaw_deg) > _PROFILE_DEG),
            f"Head tilted by more than {_TILTED_DEG:.0f} degrees": seen & (np.abs(self.roll_deg) > _TILTED_DEG),
            f"Small, crop of less than {_SMALL_PX:.0f} px (little detail to work with)": seen
            & (self.side_px < _SMALL_PX),
            "Cut off by the edge of the frame": seen & (self.inside < _CUT_OFF),
            "Motion blur": seen & (self.sharpness < _BLURRED),
        }
        return {name: np.flatnonzero(frames) for name, frames in found.items() if frames.any()}

    def summary(self) -> str:
        """What a user wants to know, a line each: how often the face was found, cuts, problems and their frames."""
        total, found = len(self.detected), int(self.detected.sum())
        lines = [f"Face found in {found} of {total} frames. Frames are counted from 0.", _cuts_text(self.cuts)]
        seen = np.flatnonzero(self.present)
        if len(seen):
            lines.append(
                f"Crop: {_span(self.side_px[seen])} px of the frame. Tilt: {_span(self.roll_deg[seen])} degrees."
            )
            if np.isfinite(self.yaw_deg[seen]).all():
                lines[-1] += f" Turn to the side: {_span(self.yaw_deg[seen])} degrees."
        problems = self.problems()
        lines += [f"{name}: {counted(frames)}, {ranges(frames)}." for name, frames in problems.items()]
        return "\n".join(lines if problems else [*lines, "No problems."])


def frame_quality(aligned: AlignedClip) -> FrameQuality:
    """What is known of every frame of an aligned face. Reads no frame."""
    track, num_frames = aligned.track, aligned.clip.num_frames
    size = (aligned.clip.width, aligned.clip.height)
    _, x, _ = quads_to_axes(aligned.quads)
    return FrameQuality(
        detected=track.detected,
        present=track.in_view,
        side_px=quad_sides_px(aligned.quads),
        roll_deg=np.degrees(np.arctan2(x[:, 1], x[:, 0])),
        yaw_deg=np.full(num_frames, np.nan) if track.pose_deg is None else track.pose_deg[:, 0].astype(np.float64),
        inside=((track.landmarks >= 0) & (track.landmarks <= size)).all(axis=2).mean(axis=1),
        sharpness=_relative_sharpness(track),
        fitted=track.is_fitted,
        profile=full_profiles(track),
        cuts=_cuts_of(track),
    )


def check_found(track: FaceTrack, least: float) -> None:
    """Refuse a face that was found in too few of the frames that should show it: between them it would be guessed.

    Frames from which the face is away (`FaceTrack.present`) do not count: they stay as they are.

    Args:
        track: the face.
        least: the smallest share of frames, 0 to 1.

    Raises:
        ValueError: fewer; it says in which frames the face was found and in which not.
    """
    seen = track.in_view
    found, missed = np.flatnonzero(seen & track.detected), np.flatnonzero(seen & ~track.detected)
    if len(found) < least * int(seen.sum()):
        raise ValueError(
            f"The face was found in only {len(found)} of the {int(seen.sum())} frames that should show it, less than "
            f"{least:.0%} (least_found). Found in frames {ranges(found)}; not in {ranges(missed)}. Trim the clip to "
            "where the face is found, set search to 'always', point at the face, or lower least_found: then the place "
            "of the face is interpolated in all these frames."
        )


def alignment_report(aligned: AlignedClip) -> str:
    """How the alignment went, in words: `FrameQuality.summary`, or what was cut out where no face was looked for."""
    if has_face(aligned.track):
        return frame_quality(aligned).summary()
    sides = quad_sides_px(aligned.quads)
    first = f"No face was looked for: a crop of {_span(sides)} px in all {len(sides)} frames."
    return f"{first}\n{_cuts_text(_cuts_of(aligned.track))}"


def _cuts_of(track: FaceTrack) -> np.ndarray:
    return track.shots[1:, 0]


def _relative_sharpness(track: FaceTrack) -> np.ndarray:
    """`(T,)` sharpness in units of the median of the shot that each frame lies in; NaN where unknown."""
    relative = np.full(len(track.detected), np.nan)
    if track.sharpness is not None:
        for start, stop in track.shots.tolist():
            values = track.sharpness[start:stop].astype(np.float64)
            known = values[np.isfinite(values)]
            if len(known) and np.median(known) > 0:
                relative[start:stop] = values / np.median(known)
    return relative


def _cuts_text(cuts: np.ndarray) -> str:
    return f"Cuts: {len(cuts)}, new shots begin at frames {listed(cuts)}." if len(cuts) else "Cuts: none."


def _span(values: np.ndarray) -> str:
    """Least and largest of `(n,)` numbers as text, "96 to 128"."""
    low, high = round(float(values.min())), round(float(values.max()))
    return str(low) if low == high else f"{low} to {high}"


def counted(frames: np.ndarray) -> str:
    """The number of `frames` in words: "1 frame", "5 frames"."""
    return f"{len(frames)} frame{'' if len(frames) == 1 else 's'}"


def listed(frames: np.ndarray, limit: int = 8) -> str:
    """Frame numbers as text, e.g. "3, 14"; after `limit` of them "..."."""
    return ", ".join(str(frame) for frame in frames[:limit].tolist()) + (", ..." if len(frames) > limit else "")


def ranges(frames: np.ndarray, limit: int = 8) -> str:
    """Frame numbers as text, e.g. "3-9, 14"; after `limit` parts "..."."""
    if len(frames) == 0:
        return "none"
    breaks = np.flatnonzero(np.diff(frames) > 1)
    starts, ends = frames[np.r_[0, breaks + 1]], frames[np.r_[breaks, len(frames) - 1]]
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    return ", ".join(parts[:limit]) + (", ..." if len(parts) > limit else "")
