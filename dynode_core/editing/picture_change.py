"""What another program changed in a picture of the face (ours).

The picture may be the whole frame, its crop, or any other framing of the same face; image models often move and resize
what they hand back, so where faces can be found the picture is laid over the source by what does not change with the
expression. Pixels that only trembled, as after a trip through a VAE, do not count as changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.crop import crop, crop_clip
from ..faces.five_points import similarity
from ..faces.landmarks import Face
from ..inversion.identity_loss import IdentityNetwork, face_grid
from ..layout import network_to_bytes, pictures_to_bytes
from ..types import AlignedClip

FindFaces = Callable[[np.ndarray], Sequence[Face]]
"""All faces in an `(H, W, 3)` uint8 picture, as `faces.landmarks.FaceLandmarker.detect` finds them."""

SAME_PERSON = 0.363
"""Cosine above which SFace's authors take two pictures for one person (OpenCV Zoo, on LFW)."""
_STABLE = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 127, 356, 234, 454, 10, 54, 284)
"""Points of the mesh that expressions hardly move: corners of the eyes, nose, temples, forehead."""
_MOVED = 0.01
"""Shift of these points, in sides of the crop, from which a picture counts as moved."""
_ASPECT = 0.012
"""Frames resized to a multiple of 8 or 16 differ by up to this in their aspect ratio."""
_NOISE = (0.01, 0.06)
"""A place counts as changed from three times the noise on, but never below the first and always above the second value
(root mean square, [-1, 1] units)."""
_WINDOW_SHARE = 0.02
_ALMOST_ALL = 0.6


@dataclass(frozen=True)
class PictureChange:
    """A frame before and after another program edited it, in the coordinates of its crop."""

    source: Tensor
    """`(1, 3, S, S)` in [-1, 1]."""
    painted: Tensor
    """The same after the edit."""
    changed: Tensor
    """`(1, 1, S, S)` in [0, 1]: where it counts as changed."""
    frame_index: int
    likeness: float | None = None
    """Cosine of the two faces' embeddings; None: not measured."""
    notes: tuple[str, ...] = ()
    """What a user should know, as sentences."""

    @property
    def difference(self) -> Tensor:
        """`(1, 3, S, S)`: the change, 0 where nothing counts as changed."""
        return self.changed * (self.painted - self.source)


def compare_pictures(
    aligned: AlignedClip,
    picture: Tensor,
    *,
    frame_index: int = 0,
    mask: Tensor | None = None,
    size: int | None = None,
    find_faces: FindFaces | None = None,
    identity: IdentityNetwork | None = None,
) -> PictureChange:
    """Lay an edited picture over the frame that it was made from.

    Args:
        aligned: where the frame and its quad come from.
        picture: `(H, W, 3)` or `(1, H, W, 3)` in [0, 1].
        frame_index: of the frame.
        mask: `(H, W)` or `(1, H, W)` in [0, 1] over the picture, at any size: white where it was edited; None: where
            the picture differs by more than its noise.
        size: side of the result; None: `aligned.crop_size`.
        find_faces: lets pictures of any framing in, and tells whether a face is left.
        identity: measures the likeness.
    Raises:
        ValueError: the picture is neither the frame nor a crop and no face was found in it, or nothing of the face is
            left in it; or the frame is not one of those in which the face is edited.
    """
    if 0 <= frame_index < aligned.clip.num_frames and not aligned.track.in_view[frame_index]:
        raise ValueError(
            f"Frame {frame_index} stays as it is, since the face is not in it or in full profile (see the report of "
            f"FrameAlign). Edit frame {aligned.track.first_shown}, the first that shows it, and say so in frame."
        )
    size = size or aligned.crop_size
    pictures = (picture[None] if picture.ndim == 3 else picture[:1])[..., :3].detach().float().cpu()
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or not bool(torch.isfinite(pictures).all()):
        raise ValueError(
            f"The edited picture should have shape (H, W, 3) without NaN, but has {tuple(picture.shape)}"
            + ("." if bool(torch.isfinite(picture).all()) else " and holds NaN or infinity.")
        )
    source = crop_clip(aligned, [frame_index], size)
    before = _mesh_of(source, find_faces)
    quad, note = _quad_of(pictures, aligned, frame_index, source, before, find_faces)
    notes = [note] if note else []
    painted = crop(pictures, quad, size)
    after = _mesh_of(painted, find_faces)
    given = None if mask is None else _mask_crop(mask, pictures, quad, size)
    changed = changed_places(painted - source) if given is None else given
    if before is not None and after is None:
        if float(changed.mean()) > _ALMOST_ALL:
            raise ValueError(
                "No face was found in the edited picture, and nearly all of it differs from the frame. Connect the "
                "edited picture of the same face."
            )
        notes.append("No face was found in the edited picture: it is taken to lie where it was.")
    likeness = _likeness(source, painted, before, after, identity)
    if likeness is not None and likeness < SAME_PERSON:
        notes.append(
            f"The edited picture may show another person: the likeness of the two faces is {likeness:.2f}, and of one "
            f"person it is usually above {SAME_PERSON:.2f}."
        )
    return PictureChange(source, painted, changed, frame_index, likeness, tuple(notes))


def _quad_of(
    pictures: Tensor,
    aligned: AlignedClip,
    frame_index: int,
    source: Tensor,
    before: np.ndarray | None,
    find_faces: FindFaces | None,
) -> tuple[np.ndarray, str]:
    """`(1, 4, 2)` pixels of the picture where the crop lies in it, and what was done about it ("": nothing)."""
    quad, size = _framing(pictures, aligned, frame_index, source), source.shape[-1]
    if quad is None:
        quad = _quad_by_face(pictures, before, find_faces, aligned)
        return quad, "The picture has another framing than the frame, so it was laid over it by the face."
    after = None if before is None else _mesh_of(crop(pictures, quad, size), find_faces)
    moved = None if before is None or after is None else _moved_quad(before, after, quad)
    if moved is None:
        return quad, ""
    return moved[0], f"The picture had moved by {moved[1]:.1%} of the crop, so it was moved back."


def changed_places(change: Tensor) -> Tensor:
    """`(1, 1, S, S)` in [0, 1], soft: where a `(1, 3, S, S)` difference in [-1, 1] units is more than noise."""
    window = max(1, round(_WINDOW_SHARE * change.shape[-1] / 2)) * 2 + 1
    mean_square = F.avg_pool2d(
        change.square().mean(dim=1, keepdim=True), window, stride=1, padding=window // 2, count_include_pad=False
    )
    rms = mean_square.sqrt()
    noise = float(rms.flatten().kthvalue(max(1, rms.numel() // 4)).values)
    threshold = min(max(3 * noise, _NOISE[0]), _NOISE[1])
    return ((rms - threshold) / threshold).clamp(0, 1)


def _framing(pictures: Tensor, aligned: AlignedClip, index: int, source: Tensor) -> np.ndarray | None:
    """`(1, 4, 2)` pixels of the picture where the crop lies in it, or None: neither the frame nor its crop."""
    height, width = pictures.shape[1:3]
    frame_height, frame_width = aligned.clip.height, aligned.clip.width
    found = []
    if abs(np.log((width / height) / (frame_width / frame_height))) < _ASPECT:
        found.append(aligned.quads[index : index + 1] * (width / frame_width, height / frame_height))
    if height == width:
        found.append(np.array([[(0, 0), (0, height), (width, height), (width, 0)]], float))
    if len(found) < 2:
        return found[0] if found else None
    small = F.adaptive_avg_pool2d(source, 32)
    errors = [float((crop(pictures, quad, 32) - small).abs().median()) for quad in found]
    return found[int(np.argmin(errors))]


def _mesh_of(image: Tensor, find_faces: FindFaces | None) -> np.ndarray | None:
    """`(P, 2)` landmarks of the face that fills a crop `(1, 3, S, S)`, in units of its side."""
    return None if find_faces is None else largest_mesh(find_faces(network_to_bytes(image)[0]), image.shape[-1])


def largest_mesh(faces: Sequence[Face], side: float) -> np.ndarray | None:
    """`(P, 2)` landmarks of the largest face that has a mesh, in units of `side` pixels; None: there is none."""
    meshes = [face for face in faces if len(face.landmarks) >= 468]
    return max(meshes, key=lambda face: face.size_px).landmarks / side if meshes else None


def _quad_by_face(
    pictures: Tensor, before: np.ndarray | None, find_faces: FindFaces | None, aligned: AlignedClip
) -> np.ndarray:
    """`(1, 4, 2)` pixels of a picture of any framing, by the face in it."""
    height, width = pictures.shape[1:3]
    after = None
    if find_faces is not None and before is not None:
        after = largest_mesh(find_faces(pictures_to_bytes(pictures[0])), 1.0)
    if before is None or after is None:
        why = "no face was found in it" if find_faces is not None else "faces can't be looked for here"
        raise ValueError(
            f"The edited first frame should be the whole frame ({aligned.clip.width} x {aligned.clip.height} pixels) "
            f"or its square crop, but is {width} x {height}, and {why}. Connect the picture without resizing it, or a "
            "crop of it."
        )
    return _mapped_corners(similarity(before[list(_STABLE)], after[list(_STABLE)]))


def _moved_quad(before: np.ndarray, after: np.ndarray, quad: np.ndarray) -> tuple[np.ndarray, float] | None:
    """The quad that follows the face, and how far it moved in sides of the crop; None if that is next to nothing."""
    to_after = similarity(before[list(_STABLE)], after[list(_STABLE)])
    places = before[list(_STABLE)]
    moved = places @ to_after[:, :2].T + to_after[:, 2] - places
    share = float(np.sqrt(np.square(moved).sum(axis=1).mean()))
    if share < _MOVED:
        return None
    corners = _mapped_corners(to_after)[0]
    top_left, bottom_left, top_right = quad[0, 0], quad[0, 1], quad[0, 3]
    return (top_left + corners[:, :1] * (top_right - top_left) + corners[:, 1:] * (bottom_left - top_left))[None], share


def _mapped_corners(matrix: np.ndarray) -> np.ndarray:
    """`(1, 4, 2)`: where a `(2, 3)` map takes the corners of the unit square."""
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)], float)
    return (corners @ matrix[:, :2].T + matrix[:, 2])[None]


def _mask_crop(mask: Tensor, pictures: Tensor, quad: np.ndarray, size: int) -> Tensor:
    """`(1, 1, S, S)` of a mask over the picture."""
    masks = (mask[None] if mask.ndim == 2 else mask[:1])[:, None].detach().float().cpu().clamp(0, 1)
    masks = F.interpolate(masks, pictures.shape[1:3], mode="bilinear", antialias=True)
    return ((crop(masks.permute(0, 2, 3, 1).expand(-1, -1, -1, 3), quad, size)[:, :1] + 1) / 2).clamp(0, 1)


def _likeness(
    source: Tensor,
    painted: Tensor,
    before: np.ndarray | None,
    after: np.ndarray | None,
    identity: IdentityNetwork | None,
) -> float | None:
    if identity is None or before is None or after is None:
        return None
    one, other = identity.embed(source, face_grid(before)), identity.embed(painted, face_grid(after))
    return float((one * other).sum())
