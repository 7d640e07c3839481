"""Linking, choosing and filling: exact on made-up detections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.faces.align import align_clip, align_detections, align_fixed
from dynode_pack.dynode_core.faces.core_landmarks import detections_from_core
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.faces.cuts import CutDetector
from dynode_pack.dynode_core.faces.detections import Detections, detect_faces
from dynode_pack.dynode_core.faces.hints import hint_from_boxes, hint_from_mask, hint_from_point
from dynode_pack.dynode_core.faces.landmarks import Face
from dynode_pack.dynode_core.faces.quads import ffhq_quads, smooth_quads
from dynode_pack.dynode_core.faces.quality import check_found, frame_quality, ranges
from dynode_pack.dynode_core.faces.tracking import choose_track, link_faces

SHAPE = np.concatenate(
    [
        np.stack([np.linspace(-40, 40, 17), 40 * np.sin(np.linspace(0, np.pi, 17))], axis=1),  # jaw
        np.stack([np.linspace(-35, 35, 10), np.full(10, -25.0)], axis=1),  # brows
        np.stack([np.zeros(9), np.linspace(-10, 10, 9)], axis=1),  # nose
        np.array([(-20.0, -10)] * 6 + [(20.0, -10)] * 6),  # eyes
        np.array([(-12.0, 22)] * 6 + [(12.0, 22)] * 14),  # mouth
    ]
)


def face_at(x: float, y: float, scale: float = 1.0, score: float = 0.9) -> Face:
    shapes = np.full(52, 0.25, dtype=np.float32)
    return Face(SHAPE * scale + (x, y), score, shapes, np.array([x / 10, 0, 0], dtype=np.float32))


def detections(faces: list[list[Face]], segments: list[tuple[int, int]] | None = None) -> Detections:
    shots = np.array(segments or [(0, len(faces))], dtype=np.int64)
    return Detections(tuple(tuple(found) for found in faces), shots, height=400, width=600)


def times(count: int) -> np.ndarray:
    return np.arange(count) / 25


def test_faces_keep_their_track_when_their_order_changes() -> None:
    frames = [[face_at(100 + t, 100), face_at(400 - t, 120)] for t in range(6)]
    frames[3].reverse()
    tracks = link_faces(detections(frames), 0, 6)
    assert [sorted(track.faces) for track in tracks] == [list(range(6))] * 2
    assert max(track.faces[3].box[0] for track in tracks) > 300
    assert [track.faces[0].box[0] < 200 for track in tracks] == [track.faces[3].box[0] < 200 for track in tracks]


def test_missed_frames_are_interpolated_in_time_and_marked() -> None:
    frames = [[face_at(100, 100)], [], [], [face_at(130, 100)], []]
    track = choose_track(detections(frames), np.array([0.0, 0.1, 0.2, 0.4, 0.5]))
    np.testing.assert_array_equal(track.detected, [True, False, False, True, False])
    np.testing.assert_allclose(track.landmarks[:, 0, 0] - SHAPE[0, 0], [100, 107.5, 115, 130, 130])
    np.testing.assert_allclose(track.scores, [0.9, 0, 0, 0.9, 0], atol=1e-6)
    np.testing.assert_allclose(track.pose_deg[:, 0], [10, 10.75, 11.5, 13, 13], atol=1e-5)
    assert track.blendshapes.shape == (5, 52)


def test_a_track_never_spans_a_cut() -> None:
    frames = [[face_at(100, 100)], [face_at(100, 100)], [], [face_at(300, 200, 1.5)]]
    track = choose_track(detections(frames, [(0, 2), (2, 4)]), times(4))
    # Frame 2 belongs to the second shot: held from frame 3, not interpolated from frame 1.
    np.testing.assert_allclose(track.landmarks[2], track.landmarks[3])


def test_a_shot_without_a_face_is_held_and_marked() -> None:
    frames = [[face_at(100, 100)], [], [], [face_at(200, 100)]]
    track = choose_track(detections(frames, [(0, 1), (1, 3), (3, 4)]), times(4))
    np.testing.assert_array_equal(track.detected, [True, False, False, True])
    np.testing.assert_allclose(track.landmarks[1], track.landmarks[0])
    np.testing.assert_allclose(track.landmarks[2], track.landmarks[3])


@pytest.mark.parametrize(
    "pick, index, expected_x",
    [
        ("largest", 0, 500),
        ("largest", 1, 290),
        ("most central", 0, 290),
        ("most central", 2, 60),
        ("left to right", 0, 60),
        ("left to right", 2, 500),
    ],
)
def test_faces_are_counted_in_the_chosen_order(pick: str, index: int, expected_x: float) -> None:
    frames = [[face_at(290, 190), face_at(500, 150, 2.0), face_at(60, 100, 0.5)] for _ in range(3)]
    track = choose_track(detections(frames), times(3), pick=pick, face_index=index)
    assert (track.boxes[:, 0] + track.boxes[:, 2]).mean() / 2 == pytest.approx(expected_x)


def test_a_face_in_view_for_a_moment_is_not_counted_by_place() -> None:
    frames = [[face_at(300, 200)] for _ in range(10)]
    frames[4].append(face_at(60, 100))
    track = choose_track(detections(frames), times(10), pick="left to right")
    assert track.landmarks[0, :, 0].mean() == pytest.approx(300 + SHAPE[:, 0].mean())


def test_a_face_away_for_long_or_in_no_frame_of_a_shot_is_not_present() -> None:
    frames = [[face_at(100, 100)] if t in (0, 1, 90) else [] for t in range(100)]
    track = choose_track(detections(frames, [(0, 95), (95, 100)]), times(100))
    assert track.present is not None and track.segments is not None
    np.testing.assert_array_equal(np.flatnonzero(~track.present), [*range(27, 65), *range(95, 100)])
    assert track.segments.tolist() == [[0, 95], [95, 100]]


@pytest.mark.parametrize("as_what", ["point", "boxes", "mask"])
def test_a_hint_chooses_the_face(as_what: str) -> None:
    found = detections([[face_at(290, 190), face_at(500, 150, 2.0), face_at(60, 100, 0.5)] for _ in range(3)])
    if as_what == "point":
        hint = hint_from_point(70, 110, 400, 600)
    elif as_what == "boxes":
        hint = hint_from_boxes(np.array([[90, 130, 30, 70]]), 3)
    else:
        mask = torch.zeros(3, 200, 300)
        mask[1, 40:60, 20:40] = 1  # painted at half size, in one frame only
        hint = hint_from_mask(mask, 3, 400, 600)
        assert hint[1].tolist() == [40, 80, 80, 120] and np.isnan(hint[0]).all()
    assert choose_track(found, times(3), hint=hint).boxes[0, 0] < 60
    assert choose_track(found, times(3), hint=hint, face_index=1).boxes[0, 0] > 200


def test_hints_that_point_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match="outside the frame"):
        hint_from_point(700, 10, 400, 600)
    with pytest.raises(ValueError, match="mask.*is empty"):
        hint_from_mask(torch.zeros(1, 8, 8), 5, 40, 60)
    with pytest.raises(ValueError, match="One mask or 5"):
        hint_from_mask(torch.ones(2, 8, 8), 5, 40, 60)
    with pytest.raises(ValueError, match="One box or 5"):
        hint_from_boxes(np.zeros((2, 4)), 5)
    with pytest.raises(ValueError, match=r"\(1, 4\) or \(1, 4\)"):
        choose_track(detections([[face_at(1, 1)]]), times(1), hint=np.zeros((3, 4)))


def core_value(num_frames: int) -> dict:
    """What ComfyUI's own landmarker hands out, with one face."""
    face = face_at(40, 30, 0.3)
    entry = {
        "bbox_xyxy": face.box.astype(np.float32),
        "blendshapes": {f"shape {i}": i / 52 for i in range(52)},
        "landmarks_xy": face.landmarks.astype(np.float32),
        "landmarks_3d": np.zeros((68, 3)),
        "presence": 3.0,
        "score": 0.8,
        "transformation_matrix": np.eye(4),
    }
    frames = [[dict(entry)] if t != 2 else [] for t in range(num_frames)]
    return {"frames": frames, "image_size": (60, 80), "connection_sets": {}}


def test_landmarks_of_comfyui_align_like_our_own() -> None:
    clip = clip_with_spot([(40, 30)] * 5)
    aligned = align_detections(clip, detections_from_core(core_value(5), clip))
    np.testing.assert_array_equal(aligned.track.detected, [True, True, False, True, True])
    np.testing.assert_allclose(aligned.quads[4:5], ffhq_quads(face_at(40, 30, 0.3).landmarks[None]), atol=1e-4)
    assert aligned.track.blendshapes[0, 26] == pytest.approx(0.5) and aligned.track.scores[0] == pytest.approx(0.8)
    assert np.abs(aligned.track.pose_deg).max() == 0


def test_landmarks_of_another_clip_or_kind_are_refused() -> None:
    clip = clip_with_spot([(40, 30)] * 5)
    with pytest.raises(ValueError, match="belong to 4 frames, but the clip has 5"):
        detections_from_core(core_value(4), clip)
    with pytest.raises(ValueError, match="FACE_LANDMARKS.*list arrived"):
        detections_from_core([], clip)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="belong to 5 frames of 600 x 400"):
        align_detections(clip, detections([[face_at(1, 1)]] * 5))


def test_fixed_quads_and_the_centre_square() -> None:
    clip = clip_with_spot([(40, 30)] * 3)
    square = align_fixed(clip, crop_size=60)
    torch.testing.assert_close(crop_clip(square, [1])[0], clip.read([1])[0, :, 10:70].permute(2, 0, 1) * 2 - 1)
    quad = np.array([(5.0, 5), (5, 45), (45, 45), (45, 5)])
    assert (align_fixed(clip, quads=quad).quads == quad).all()
    with pytest.raises(ValueError, match=r"shape \(4, 2\)"):
        align_fixed(clip, quads=np.zeros((2, 4, 2)))
    with pytest.raises(ValueError, match="no area"):
        align_fixed(clip, quads=np.ones((4, 2)))


def test_quality_names_the_problems_and_their_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 60, 80, 3, generator=generator).repeat(9, 1, 1, 1)
    found = [[replace(face_at(40, 30, 0.3), sharpness=0.1 if t == 7 else 0.2)] for t in range(9)]
    found[3] = []
    turned = face_at(40, 30, 0.3)
    found[5] = [Face(turned.landmarks, 0.9, turned.blendshapes, np.array([60, 0, 0], dtype=np.float32))]
    clip = TensorClip(frames, 25)
    shots = np.array([[0, 9]])
    aligned = align_detections(clip, Detections(tuple(map(tuple, found)), shots, 60, 80), center_sigma=0, axes_sigma=0)
    quality = frame_quality(aligned)
    problems = {name.split(",")[0].split(" (")[0]: frames.tolist() for name, frames in quality.problems().items()}
    assert problems["Not found"] == [3]
    assert problems["Profile view"] == [5]
    assert problems["Motion blur"] == [7]
    assert problems["Small"] == list(range(9))
    summary = quality.summary()
    assert summary.startswith("Face found in 8 of 9 frames.")
    assert "Cuts: none." in summary and "Motion blur: 1 frame, 7." in summary and "No problems" not in summary
    assert ranges(np.array([1, 2, 3, 7, 9, 10])) == "1-3, 7, 9-10" and ranges(np.array([], dtype=int)) == "none"


def test_errors_say_how_many_frames_were_searched_and_how_many_faces_there_are() -> None:
    with pytest.raises(ValueError, match="No face was found in any of the 3 frames searched.*trim"):
        choose_track(detections([[], [], []]), times(3))
    with pytest.raises(ValueError, match="Face 2 was asked for.*at most 1 face is in view.*face_index to 0"):
        choose_track(detections([[face_at(1, 1)]]), times(1), face_index=2)
    with pytest.raises(ValueError, match="'nearest' was asked for"):
        choose_track(detections([[face_at(1, 1)]]), times(1), pick="nearest")


class PlaceOfBrightestPixel:
    """A detector whose answer can be computed: the face sits where the picture is brightest, if it is bright at all."""

    def detect(self, frame: np.ndarray) -> list[Face]:
        light = frame.sum(axis=2)
        y, x = np.unravel_index(light.argmax(), light.shape)
        return [face_at(float(x), float(y), 0.3)] if light.max() > 300 else []


def clip_with_spot(places: list[tuple[int, int] | None]) -> TensorClip:
    frames = torch.full((len(places), 60, 80, 3), 0.1)
    for t, place in enumerate(places):
        if place is not None:
            frames[t, place[1], place[0]] = 1.0
    return TensorClip(frames, 25)


def test_align_clip_gives_one_smooth_quad_per_frame() -> None:
    clip = clip_with_spot([(20 + 2 * t, 30) if t != 5 else None for t in range(12)])
    aligned = align_clip(clip, PlaceOfBrightestPixel(), crop_size=64, scale=1.2, center_sigma=2, axes_sigma=4)
    assert aligned.quads.shape == (12, 4, 2) and aligned.crop_size == 64
    np.testing.assert_array_equal(np.flatnonzero(~aligned.track.detected), [5])
    expected = smooth_quads(ffhq_quads(aligned.track.landmarks, 1.2), 2, 4)
    np.testing.assert_allclose(aligned.quads, expected)
    assert aligned.quads[5, 0, 0] == pytest.approx((aligned.quads[4, 0, 0] + aligned.quads[6, 0, 0]) / 2, abs=0.05)


def test_align_clip_takes_a_single_frame() -> None:
    aligned = align_clip(clip_with_spot([(40, 30)]), PlaceOfBrightestPixel())
    np.testing.assert_allclose(aligned.quads, ffhq_quads(face_at(40, 30, 0.3).landmarks[None]))


def test_align_clip_without_a_face_says_what_was_searched() -> None:
    with pytest.raises(ValueError, match="7 frames searched"):
        align_clip(clip_with_spot([None] * 7), PlaceOfBrightestPixel())


def test_progress_is_called_for_every_frame_and_can_cancel() -> None:
    seen: list[tuple[int, int]] = []

    def count(done: int, total: int, preview: np.ndarray | None = None) -> None:
        seen.append((done, total))
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_faces(clip_with_spot([(30, 30)] * 12), PlaceOfBrightestPixel(), progress=count)
    assert seen == [(i, 12) for i in range(1, 10)]


def shot(seed: int, count: int, drift: float) -> list[np.ndarray]:
    """A coarse random scene that pans slowly under noise."""
    rng = np.random.default_rng(seed)
    scene = np.kron(rng.uniform(40, 200, (10, 40, 3)), np.ones((12, 12, 1)))
    frames = []
    for t in range(count):
        x = int(t * drift)
        frames.append((scene[:108, x : x + 192] + rng.normal(0, 6, (108, 192, 3))).clip(0, 255).astype(np.uint8))
    return frames


def test_cuts_are_found_and_motion_light_and_noise_are_not_cuts() -> None:
    frames = shot(0, 12, 3.0) + shot(1, 9, 0.0) + shot(2, 7, 8.0)
    frames[5] = (frames[5].astype(float) * 0.5 + 90).clip(0, 255).astype(np.uint8)  # a flash
    detector = CutDetector()
    for frame in frames:
        detector.add(frame)
    assert detector.segments().tolist() == [[0, 12], [12, 21], [21, 28]]


def test_black_frames_and_tiny_pictures_have_no_cut() -> None:
    detector = CutDetector()
    for _ in range(4):
        detector.add(np.zeros((3, 2, 3), dtype=np.uint8))
    assert detector.segments().tolist() == [[0, 4]]


def test_a_face_found_too_seldom_is_refused_with_the_frames() -> None:
    faces: list[list[Face]] = [[] for _ in range(20)]
    for t in (4, 5, 15):
        faces[t] = [face_at(100, 100)]
    track = choose_track(detections(faces), times(20))
    check_found(track, 0.15)
    with pytest.raises(
        ValueError, match=r"only 3 of the 20 frames.*Found in frames 4-5, 15; not in 0-3, 6-14, 16-19\."
    ):
        check_found(track, 0.2)


def test_frames_from_which_the_face_is_away_do_not_count_as_missed() -> None:
    found = [[face_at(100, 100)]] * 10
    track = choose_track(detections([*found, *([[]] * 90)]), times(100))
    assert int(track.in_view.sum()) == 35  # a second on
    check_found(track, 10 / 35)
    with pytest.raises(ValueError, match="only 10 of the 35 frames"):
        check_found(track, 0.3)
