"""The typed values that one stage hands to the next.

Symbols: T frames, K keyframes, N output times, L = `num_ws`, D = `w_dim`. Times are seconds of the source clip.
Every value is frozen and checks itself; nobody mutates what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .checks import check_finite, check_increasing, check_shape
from .code_stream import CodeStream
from .tuned_weights import Tuning


@runtime_checkable
class VideoClip(Protocol):
    """Frames that can be read again and again, in memory (`TensorClip`) or in a file (`video.FileClip`)."""

    @property
    def num_frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def fps(self) -> Fraction: ...

    @property
    def frame_times(self) -> np.ndarray:
        """`(T,)` float64 seconds, increasing, first frame at 0."""
        ...

    @property
    def clip_id(self) -> str:
        """Hash of the content: caches are keyed by it."""
        ...

    @property
    def path(self) -> Path | None:
        """The video file behind the clip (for its audio), if there is one."""
        ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """`(n, H, W, 3)` float32 in [0, 1] for non-decreasing frame `indices`."""
        ...

    def chunks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of first frame, `(n, H, W, 3)` float32 in [0, 1]) with n <= `size`, each frame once."""
        ...


@dataclass(frozen=True)
class FaceTrack:
    """One face over all frames; a frame without a detection keeps its place with interpolated landmarks."""

    landmarks: np.ndarray
    """`(T, P, 2)` float64 pixels, P = 478 (mesh) or 68; pixel centres at +0.5, origin top-left."""
    boxes: np.ndarray
    """`(T, 4)` float64 pixels x0, y0, x1, y1."""
    scores: np.ndarray
    """`(T,)` float32 in [0, 1]; 0 where nothing was detected."""
    detected: np.ndarray
    """`(T,)` bool."""
    blendshapes: np.ndarray | None = None
    """`(T, 52)` float32 in [0, 1], mediapipe's order, interpolated where not fitted."""
    pose_deg: np.ndarray | None = None
    """`(T, 3)` float32 yaw, pitch, roll in degrees, interpolated where not detected."""
    present: np.ndarray | None = None
    """`(T,)` bool: False where nothing is to invert or edit: the face is not in the picture at all (another shot, or
    away for long), or in full profile and not asked for (`faces.profiles`). A missed detection is present. None:
    present everywhere."""
    segments: np.ndarray | None = None
    """`(S, 2)` int64 first frame and frame after the last of each shot, in order, without gaps. None: one shot."""
    sharpness: np.ndarray | None = None
    """`(T,)` float32, 0 or more: see `faces.sharpness`; NaN where nothing was detected."""
    fitted: np.ndarray | None = None
    """`(T,)` bool: False where landmarks were not fitted to the picture, but interpolated or, in profile, those of a
    mean face on five points (`faces.posed_mesh`). None: fitted wherever detected."""

    def __post_init__(self) -> None:
        num_frames = len(self.landmarks)
        check_shape("landmarks", self.landmarks, ("T", "P", 2))
        check_shape("boxes", self.boxes, (num_frames, 4))
        check_shape("scores", self.scores, (num_frames,))
        check_shape("detected", self.detected, (num_frames,))
        if self.present is not None:
            check_shape("present", self.present, (num_frames,))
        if self.segments is not None:
            check_shape("segments", self.segments, ("S", 2))
        if self.sharpness is not None:
            check_shape("sharpness", self.sharpness, (num_frames,))
        if self.fitted is not None:
            check_shape("fitted", self.fitted, (num_frames,))
        check_finite("landmarks", self.landmarks)

    @property
    def in_view(self) -> np.ndarray:
        """`(T,)` bool: `present`, or True everywhere."""
        return np.ones(len(self.detected), dtype=bool) if self.present is None else self.present

    @property
    def first_shown(self) -> int:
        """The first frame in view, to which the first code belongs."""
        return int(np.argmax(self.in_view))

    @property
    def is_fitted(self) -> np.ndarray:
        """`(T,)` bool: `fitted`, or `detected`."""
        return self.detected if self.fitted is None else self.fitted

    @property
    def shots(self) -> np.ndarray:
        """`(S, 2)` int64: `segments`, or one shot."""
        return np.array([[0, len(self.detected)]]) if self.segments is None else self.segments

    def shot_of(self, frames: np.ndarray) -> np.ndarray:
        """`(n,)` int64: which of `shots` each of `(n,)` frames belongs to."""
        return np.searchsorted(self.shots[1:, 0], frames, side="right")

    def cut_times(self, frame_times: np.ndarray) -> np.ndarray:
        """`(S - 1,)` float64 seconds of the cuts for `(T,)` `frame_times`: halfway between the frames on either side,
        where blending changes from one to the other."""
        first = self.shots[1:, 0]
        return (frame_times[first - 1] + frame_times[first]) / 2


@dataclass(frozen=True)
class AlignedClip:
    """A clip with one quad per frame. Crops are cut on demand (`faces.crop.crop_clip`), so length costs no memory."""

    clip: VideoClip
    quads: np.ndarray
    """`(T, 4, 2)` float64 pixels, order TL, BL, BR, TR."""
    track: FaceTrack
    crop_size: int = 512
    """Side of the crops that stages exchange as pictures, in pixels."""

    def __post_init__(self) -> None:
        check_shape("quads", self.quads, (self.clip.num_frames, 4, 2))
        check_finite("quads", self.quads)
        if len(self.track.detected) != self.clip.num_frames:
            raise ValueError(
                f"The track has {len(self.track.detected)} frames, but the clip has {self.clip.num_frames}."
            )


@dataclass(frozen=True)
class InvertedClip:
    """W+ codes of the keyframes of a clip."""

    w_plus: Tensor
    """`(K, L, D)` float32, CPU."""
    times: np.ndarray
    """`(K,)` float64 seconds, increasing."""
    frame_indices: np.ndarray
    """`(K,)` int64: which frames of the clip are keyframes."""
    loss: np.ndarray
    """`(K,)` float32: the reached value of the optimised loss."""
    frame_times: np.ndarray
    """`(T,)` float64 seconds of all frames of the clip."""
    fps: Fraction
    family: str
    generator_id: str
    report: Mapping[str, Any] = field(default_factory=dict)
    tuning: Tuning | None = None
    cuts_s: np.ndarray | None = None
    """`(C,)` float64 seconds, increasing: changes of shot seen in the pictures (`FaceTrack.cut_times`). None: not
    known."""

    def __post_init__(self) -> None:
        num_keyframes = len(self.times)
        check_shape("w_plus", self.w_plus, (num_keyframes, "L", "D"))
        check_shape("frame_indices", self.frame_indices, (num_keyframes,))
        check_finite("w_plus", self.w_plus)
        check_increasing("times", self.times)
        check_increasing("frame_times", self.frame_times)
        if self.cuts_s is not None and len(self.cuts_s):
            check_increasing("cuts_s", self.cuts_s)


@dataclass(frozen=True)
class EditDirection:
    """A direction in W or W+ along which one attribute changes."""

    name: str
    direction: Tensor
    """`(D,)` or `(L, D)` float32; strength 1 adds it once."""
    family: str
    """Generator family, or "ffhq-w" for W directions that fit every generator trained on FFHQ."""
    depth: tuple[float, float] = (0.0, 1.0)
    """Which rows it acts on, as fractions of the depth of the generator: (0.17, 0.44) is rows 3 to 7 of 18."""

    def __post_init__(self) -> None:
        if self.direction.ndim not in (1, 2):
            raise ValueError(
                f"Direction {self.name!r} should have shape (D,) or (L, D), "
                f"but has shape {tuple(self.direction.shape)}."
            )
        check_finite(f"Direction {self.name!r}", self.direction)


@dataclass(frozen=True)
class EditedLatent:
    """The code of the first frame before and after editing: the only thing that an edit changes."""

    w_plus_0: Tensor
    """`(L, D)` float32: the edited code."""
    base_w_plus_0: Tensor
    """`(L, D)` float32: the code as inverted."""
    edits: tuple[str, ...]
    """What was applied, in order, for captions and reports, e.g. ("smile=2",)."""
    family: str
    tuning: Tuning | None = None
    """Of the whole clip: its `tuned_weights.first_set` draws this code."""

    def __post_init__(self) -> None:
        check_shape("w_plus_0", self.w_plus_0, tuple(self.base_w_plus_0.shape))
        check_finite("w_plus_0", self.w_plus_0)


@dataclass(frozen=True)
class FaceTexture:
    """What a generator cannot draw, as a picture that moves with the mesh of the face.

    Both pictures are to be added to faces, in units of [-1, 1], where `alpha` says.
    """

    shown: Tensor
    """`(3, S, S)` float32: what the edited face lacks against the edited picture."""
    detail: Tensor
    """`(3, S, S)` float32: what the unedited face lacks against the source."""
    alpha: Tensor
    """`(1, S, S)` float32 in [0, 1]."""
    landmarks: np.ndarray
    """`(P, 2)` float64 landmarks of the frame it was made in, in units of the crop's side."""
    frame_index: int = 0
    """Of that frame."""

    def __post_init__(self) -> None:
        size = self.alpha.shape[-1]
        check_shape("alpha", self.alpha, (1, size, size))
        check_shape("landmarks", self.landmarks, ("P", 2))
        check_finite("landmarks", self.landmarks)
        for name, picture in (("shown", self.shown), ("detail", self.detail), ("alpha", self.alpha)):
            check_finite(name, picture)
            if name != "alpha":
                check_shape(name, picture, (3, size, size))


@dataclass(frozen=True)
class LatentTrajectory:
    """The codes of a clip as the solution of dz/dt = f_theta(z, t): paper, equations 4 and 5."""

    vector_field: torch.nn.Module
    """f_theta over the subspace state y and normalised time tau in [0, 1]; see `ode.vector_field`."""
    subspace: Any
    """`ode.subspace.Subspace`: W+ codes <-> states y."""
    w_plus_0: Tensor
    """`(L, D)` float32: the observed first code."""
    times: np.ndarray
    """`(K,)` float64 seconds of the observations."""
    w_plus: Tensor
    """`(K, L, D)` float32: the observations (for plots, certificates and the faithful <-> smooth dial)."""
    frame_times: np.ndarray
    """`(T,)` float64 seconds of all frames of the clip."""
    fps: Fraction
    family: str
    generator_id: str
    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-6
    certificate: Mapping[str, Any] = field(default_factory=dict)
    """What was verified after the fit: drift, probe gains, held-out error, observed error, tries."""
    tuning: Tuning | None = None


@dataclass(frozen=True)
class TrajectorySample:
    """Codes at chosen times, ready to render."""

    w_plus: Tensor | CodeStream
    """`(N, L, D)` float32, CPU: with the edit. Slices are tensors, `w_plus[:]` all codes, of either kind."""
    base_w_plus: Tensor | CodeStream
    """`(N, L, D)` float32, CPU: without it (the same object when nothing was edited)."""
    times: np.ndarray
    """`(N,)` float64 seconds of the SOURCE clip at which the codes are taken."""
    fps: Fraction
    """Rate at which the N frames are to be played."""
    family: str
    generator_id: str
    nfe: int = 0
    """Sequential evaluations of f_theta."""
    status: str = "success"
    edits: tuple[str, ...] = ()
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        check_shape("w_plus", self.w_plus, (len(self.times), "L", "D"))
        check_shape("base_w_plus", self.base_w_plus, tuple(self.w_plus.shape))
        if isinstance(self.w_plus, Tensor):
            check_finite("w_plus", self.w_plus)
