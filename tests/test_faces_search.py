"""The second stage of detection: tiles, turned pictures, and real small faces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.faces.boxes import BoxDetector, FaceBox, distinct_boxes, pyramid
from dynode_pack.dynode_core.faces.detections import detect_faces, drop_unconfirmed
from dynode_pack.dynode_core.faces.landmarks import Face, FaceLandmarker
from dynode_pack.dynode_core.faces.search import FaceSearch
from dynode_pack.dynode_core.layout import bytes_to_pictures, network_to_bytes


@pytest.fixture(scope="module")
def task_path() -> Path:
    pytest.importorskip("mediapipe")
    from dynode_pack.dynode_core.model_files import find_landmarker

    return find_landmarker()


@pytest.fixture(scope="module")
def landmarker(task_path: Path) -> Iterator[FaceLandmarker]:
    with FaceLandmarker(task_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def search(task_path: Path) -> Iterator[FaceSearch]:
    with FaceSearch(task_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """`(256, 256, 3)` uint8: a generated face."""
    from dynode_pack.dynode_core.checkpoints.load import load_generator

    generator = load_generator()
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return network_to_bytes(generator.synthesize(generator.map(z, truncation_psi=0.6), size=256))[0]


def place(face: np.ndarray, height: int, width: int, side: int, x: int, y: int) -> np.ndarray:
    """A textured picture with the face picture, `side` px wide, at (x, y)."""
    from PIL import Image

    rows, columns = np.mgrid[:height, :width]
    texture = 100 + 20 * np.sin(rows / 17) * np.cos(columns / 23)
    picture = np.repeat(texture[..., None], 3, axis=2).astype(np.uint8)
    picture[y : y + side, x : x + side] = np.asarray(Image.fromarray(face).resize((side, side)))
    return picture


@pytest.mark.parametrize("height, width, min_face_px", [(360, 640, 36), (1080, 1920, 60), (50, 40, 40), (720, 300, 30)])
def test_every_face_fits_into_a_tile_in_which_it_is_large_enough(height: int, width: int, min_face_px: float) -> None:
    tiles = list(pyramid(height, width, min_face_px))
    rng = np.random.default_rng(0)
    for _ in range(200):
        side = float(rng.uniform(min_face_px, max(min_face_px, 0.6 * min(height, width))))
        x, y = rng.uniform(0, max(width - side, 0)), rng.uniform(0, max(height - side, 0))
        shares = [
            side / tile
            for tx, ty, tile in tiles
            if tx <= x + 1 and ty <= y + 1 and x + side <= tx + tile + 1 and y + side <= ty + tile + 1
        ]
        assert max(shares) >= 0.1


def test_the_better_of_two_boxes_in_one_place_is_kept() -> None:
    boxes = [FaceBox((50, 50), 40, 0, 0.6), FaceBox((55, 52), 44, 0, 0.9), FaceBox((120, 50), 40, 0, 0.5)]
    assert [box.score for box in distinct_boxes(boxes)] == [0.9, 0.5]


@pytest.mark.weights
@pytest.mark.parametrize("side, x, y", [(110, 40, 200), (70, 300, 150)])
def test_small_faces_are_found_where_one_pass_sees_none(
    landmarker: FaceLandmarker, search: FaceSearch, face: np.ndarray, side: int, x: int, y: int
) -> None:
    picture = place(face, 400, 720, side, x, y)
    assert landmarker.detect(picture) == []
    found = search.search(picture, [])
    assert len(found) == 1
    large = landmarker.detect(place(face, 256, 256, 256, 0, 0))[0].landmarks * side / 256 + (x, y)
    assert np.abs(found[0].landmarks - large).mean() < 0.03 * side
    assert search.search(picture, found) == []


@pytest.mark.weights
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_on_their_side_and_upside_down_are_found(
    landmarker: FaceLandmarker, search: FaceSearch, face: np.ndarray, quarters: int
) -> None:
    upright = place(face, 300, 300, 200, 60, 30)
    expected = landmarker.detect(upright)[0].landmarks
    for _ in range(quarters):  # a picture turned counter-clockwise takes (x, y) to (y, width - x)
        expected = np.stack([expected[:, 1], 300 - expected[:, 0]], axis=1)
    found = search.search(np.ascontiguousarray(np.rot90(upright, quarters)), [])
    assert len(found) == 1
    assert np.abs(found[0].landmarks - expected).mean() < 4
    roll = (found[0].pose_deg[2] + 90 * quarters + 180) % 360 - 180
    assert abs(roll) < 15


@pytest.mark.weights
def test_a_picture_without_a_face_gives_none(search: FaceSearch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    assert search.search(noise, []) == []
    assert search.search(place(noise[:50, :50], 200, 300, 50, 100, 60), []) == []


@pytest.mark.weights
def test_a_small_face_is_followed_both_ways_from_where_the_search_found_it(
    landmarker: FaceLandmarker, face: np.ndarray
) -> None:
    # Out of the picture until frame 3, so frame 8 (the next one that is searched) finds it and it is followed back.
    empty = place(np.full((8, 8, 3), 100, np.uint8), 300, 540, 8, 0, 0)
    pictures = [empty if t < 3 else place(face, 300, 540, 84, 300 - 4 * t, 100) for t in range(10)]
    clip = TensorClip(bytes_to_pictures(np.stack(pictures)), 25)
    found = detect_faces(clip, landmarker, search="when needed")
    assert [len(faces) for faces in found.faces] == [0] * 3 + [1] * 7
    with pytest.raises(ValueError, match="search for small faces is one of"):
        detect_faces(clip, landmarker, search="sometimes")


@pytest.mark.weights
def test_a_bundle_without_a_box_detector_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    path = tmp_path / "other.task"
    path.write_bytes(b"no zip file")
    with pytest.raises(RuntimeError, match="search for small faces"):
        BoxDetector(path)


@pytest.mark.weights
@pytest.mark.slow
def test_recall_on_a_stage_with_small_dark_and_half_turned_faces(landmarker: FaceLandmarker, shared: Path) -> None:
    from dynode_pack.dynode_core.video import FileClip

    path = shared / "assets" / "clips" / "stage_cuts_small_faces_640x360.mp4"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    clip = FileClip(path)
    audience = TensorClip(clip.read(range(216, 222)), clip.fps)
    wide = TensorClip(clip.read(range(0, 2)), clip.fps)
    # Counted by eye: four people of 65 to 85 px in the audience; singer (45 px) and pianist (30 px) in the wide shot.
    assert sum(len(faces) for faces in detect_faces(audience, landmarker, search="always").faces) >= 0.9 * 4 * 6
    assert all(len(faces) == 2 for faces in detect_faces(wide, landmarker, search="always").faces)


def test_a_face_that_only_the_search_sees_in_a_single_frame_does_not_count() -> None:
    points = np.array([(0.0, 0), (40, 0), (0, 40), (40, 40)])
    hair, real, alone = Face(points, 0.5), Face(points + 100, 0.5), Face(points, 0.5)
    faces = [[], [hair, real], [Face(points + 104, 0.6)], [alone]]
    drop_unconfirmed(faces, [(1, hair), (1, real), (3, alone)], np.array([(0, 3), (3, 4)]))
    assert [len(found) for found in faces] == [0, 1, 1, 1]  # the last one is alone in its shot
    assert faces[1][0] is real
