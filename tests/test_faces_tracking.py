"""Linking, choosing and filling: exact on made-up detections."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.faces.align import align_clip
from dynode_pack.dynode_core.faces.cuts import CutDetector
from dynode_pack.dynode_core.faces.detections import Detections, detect_faces
from dynode_pack.dynode_core.faces.landmarks import Face
from dynode_pack.dynode_core.faces.quads import ffhq_quads, smooth_quads
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
