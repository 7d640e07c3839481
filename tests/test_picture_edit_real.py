"""Edited pictures of real faces: who is it, where is the face, and does the mesh carry the skin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dynode_pack.dynode_core.blending.region import unit_landmarks
from dynode_pack.dynode_core.blending.shots import Shots
from dynode_pack.dynode_core.editing.picture_change import SAME_PERSON, compare_pictures
from dynode_pack.dynode_core.faces.align import align_clip
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.faces.landmarks import FaceLandmarker
from dynode_pack.dynode_core.faces.mesh_warp import FaceMesh
from dynode_pack.dynode_core.inversion.identity_loss import IdentityNetwork
from dynode_pack.dynode_core.layout import network_to_pictures
from dynode_pack.dynode_core.model_files import find_identity, find_landmarker
from dynode_pack.dynode_core.types import AlignedClip
from dynode_pack.dynode_core.video import FileClip

pytestmark = pytest.mark.weights
SIZE = 256


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return FaceLandmarker(find_landmarker())


@pytest.fixture(scope="module")
def identity() -> IdentityNetwork:
    path = find_identity()
    assert path is not None
    return IdentityNetwork(path)


def real_clip(shared: Path, name: str, landmarker: FaceLandmarker, seconds: float) -> AlignedClip:
    path = shared / "assets" / "clips" / name
    if not path.is_file():
        pytest.skip(f"needs the clip {path}")
    return align_clip(FileClip(path, duration_s=seconds), landmarker, crop_size=SIZE)


@pytest.fixture(scope="module")
def man(shared: Path, landmarker: FaceLandmarker) -> AlignedClip:
    return real_clip(shared, "man_neutral_480.mp4", landmarker, 2.5)


@pytest.fixture(scope="module")
def woman(shared: Path, landmarker: FaceLandmarker) -> AlignedClip:
    return real_clip(shared, "woman_room_1280x720.mp4", landmarker, 0.2)


def first_crop(aligned: AlignedClip) -> torch.Tensor:
    return network_to_pictures(crop_clip(aligned, [0]))[0]


def test_lipstick_does_not_change_who_it_is(man, landmarker, identity) -> None:
    picture = first_crop(man).clone()
    points = unit_landmarks(man, Shots(man), 0, 0.0, 0.0)
    x, y = (points[[61, 291, 0, 17]].mean(axis=0) * SIZE).round().astype(int)
    picture[y - 5 : y + 5, x - 20 : x + 20] *= torch.tensor([1.0, 0.3, 0.3])
    change = compare_pictures(man, picture, find_faces=landmarker.detect, identity=identity)
    assert change.likeness is not None and change.likeness > 0.8 and not change.notes
    assert 0.005 < float(change.changed.mean()) < 0.05


def test_another_person_is_noticed(man, woman, landmarker, identity) -> None:
    change = compare_pictures(man, first_crop(woman), find_faces=landmarker.detect, identity=identity)
    assert change.likeness is not None and change.likeness < SAME_PERSON
    assert any("another person" in note and f"{change.likeness:.2f}" in note for note in change.notes)


def test_a_picture_without_a_face_is_refused(man, landmarker) -> None:
    noise = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="No face was found in the edited picture"):
        compare_pictures(man, noise, find_faces=landmarker.detect)


def test_a_shifted_and_enlarged_picture_is_laid_back(man, landmarker) -> None:
    crop = first_crop(man).permute(2, 0, 1)[None]
    theta = torch.tensor([[[0.94, 0.0, 0.05], [0.0, 0.94, -0.04]]])
    moved = F.grid_sample(crop, F.affine_grid(theta, list(crop.shape), align_corners=False), align_corners=False)
    moved = moved[0].permute(1, 2, 0)
    inner = slice(SIZE // 4, 3 * SIZE // 4)
    loose = compare_pictures(man, moved)
    laid = compare_pictures(man, moved, find_faces=landmarker.detect)
    errors = [float((change.painted - change.source)[..., inner, inner].abs().mean()) for change in (loose, laid)]
    assert "moved back" in laid.notes[0] and errors[1] < 0.5 * errors[0]


def test_any_framing_of_the_frame_is_understood(man, landmarker) -> None:
    frame = man.clip.read([0])[0]
    height, width = frame.shape[:2]
    picture = frame[: int(0.95 * height), int(0.1 * width) : int(0.9 * width)]
    change = compare_pictures(man, picture, find_faces=landmarker.detect)
    inner = slice(SIZE // 4, 3 * SIZE // 4)
    assert "another framing" in change.notes[0]
    assert float((change.painted - change.source)[..., inner, inner].abs().mean()) < 0.05


def test_the_mesh_carries_the_skin_where_it_goes(man) -> None:
    """The first frame, carried to others, looks more like them than it does where it was."""
    shots = Shots(man)
    points = np.stack([unit_landmarks(man, shots, i, 0.0, 1.0) for i in range(man.clip.num_frames)])
    moved = np.linalg.norm(points - points[0], axis=2).mean(axis=1)
    farthest = np.argsort(moved)[-3:].tolist()
    first, mesh = crop_clip(man, [0]), FaceMesh(points[0])
    for index in farthest:
        places = mesh.places(points[index], SIZE)
        carried = F.grid_sample(first, places.grid, align_corners=False)
        there = crop_clip(man, [index])
        seen = (places.share > 0.99).float()[None]
        face = torch.zeros(1, 1, SIZE, SIZE)
        x0, y0 = (points[index].min(axis=0) * SIZE).astype(int)
        x1, y1 = (points[index].max(axis=0) * SIZE).astype(int)
        face[..., y0:y1, x0:x1] = 1
        errors = [float(((picture - there).abs() * seen * face).sum()) for picture in (first, carried)]
        assert errors[1] < 0.75 * errors[0]
