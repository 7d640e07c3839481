"""What a user asks of the alignment: framings, ways to point at a face, and the report in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.faces import framing
from dynode_pack.dynode_core.faces.detections import Detections
from dynode_pack.dynode_core.faces.framing import (
    AlignSettings,
    align_as_asked,
    quad_from_text,
    squares_around,
)
from dynode_pack.dynode_core.faces.hints import hint_from_core_boxes, hint_from_point, point_from_text
from dynode_pack.dynode_core.faces.landmarks import Face
from dynode_pack.dynode_core.faces.quads import quad_sides_px
from dynode_pack.dynode_core.faces.quality import alignment_report
from dynode_pack.dynode_core.faces.sharpness import face_sharpness

HEIGHT, WIDTH = 60, 80
SHAPE = np.zeros((68, 2))
SHAPE[36:42], SHAPE[42:48], SHAPE[48:] = (-6.0, -3), (6.0, -3), (0.0, 7)


def clip_of(num_frames: int, cut: int | None = None) -> TensorClip:
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.random((10, 16, 3)), np.ones((6, 5, 1))) for _ in range(2)]
    pictures = [scenes[int(cut is not None and t >= cut)] for t in range(num_frames)]
    return TensorClip(torch.from_numpy(np.stack(pictures)).float(), 25)


class TwoFaces:
    """A face at (20, 30) and a larger one at (60, 30); counts how often it is opened."""

    def __init__(self) -> None:
        self.opened = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[TwoFaces]:
        self.opened += 1
        yield self

    def detect(self, frame: np.ndarray) -> list[Face]:
        return [Face(SHAPE + (20, 30), 1.0), Face(1.2 * SHAPE + (60, 30), 1.0)]


def test_framings_of_a_face() -> None:
    clip, faces = clip_of(5), TwoFaces()
    narrow, wide, scaled = (
        align_as_asked(clip, AlignSettings(framing=name, scale=scale), faces.open)
        for name, scale in (("face", 1.0), ("face wide", 1.0), ("face", 1.2))
    )
    np.testing.assert_allclose(quad_sides_px(wide.quads), 1.2 * quad_sides_px(narrow.quads))
    np.testing.assert_allclose(wide.quads, scaled.quads)
    assert narrow.quads.mean(axis=1)[0, 0] == pytest.approx(60)


def test_framings_without_a_face_need_no_landmarker_and_know_the_cuts() -> None:
    clip, faces = clip_of(12, cut=7), TwoFaces()
    square = align_as_asked(clip, AlignSettings(framing="centre crop"), faces.open)
    np.testing.assert_allclose(square.quads[3], [(10, 0), (10, 60), (70, 60), (70, 0)])
    assert square.track.segments is not None and square.track.segments.tolist() == [[0, 7], [7, 12]]
    asked = AlignSettings(framing="custom quad", quad=quad_from_text("5, 10, 45, 50"))
    custom = align_as_asked(clip, asked, faces.open)
    np.testing.assert_allclose(custom.quads[11], [(5, 10), (5, 50), (45, 50), (45, 10)])
    assert faces.opened == 0
    assert alignment_report(square) == (
        "No face was looked for: a crop of 60 px in all 12 frames.\nCuts: 1, new shots begin at frames 7."
    )


def test_a_custom_quad_follows_boxes_and_stays_on_its_side_of_a_cut() -> None:
    boxes = np.array([(10.0, 10, 30, 20)] * 7 + [(40.0, 10, 60, 40)] * 5)
    boxes[3] = np.nan
    settings = AlignSettings(framing="custom quad", smoothing=2.0)
    aligned = align_as_asked(clip_of(12, cut=7), settings, TwoFaces().open, hint=boxes)
    np.testing.assert_allclose(aligned.quads[:7], np.tile([[(10, 5), (10, 25), (30, 25), (30, 5)]], (7, 1, 1)))
    np.testing.assert_allclose(aligned.quads[7:].mean(axis=1), np.tile([[50, 25]], (5, 1)))
    np.testing.assert_allclose(quad_sides_px(aligned.quads[7:]), 30)


def test_a_point_chooses_the_smaller_face() -> None:
    hint = hint_from_point(18, 28, HEIGHT, WIDTH)
    aligned = align_as_asked(clip_of(4), AlignSettings(), TwoFaces().open, hint=hint)
    assert aligned.quads.mean(axis=1)[0, 0] == pytest.approx(20)


@pytest.mark.parametrize(
    ("hinted", "asked", "expected"),
    [(False, "when needed", "when needed"), (True, "when needed", "always"), (True, "off", "off")],
)
def test_a_hint_widens_the_search(monkeypatch: pytest.MonkeyPatch, hinted: bool, asked: str, expected: str) -> None:
    seen: list[str] = []

    def detect(clip: TensorClip, detector: TwoFaces, *, search: str, **_: object) -> Detections:
        seen.append(search)
        faces = tuple(tuple(detector.detect(np.zeros(0))) for _ in range(clip.num_frames))
        return Detections(faces, np.array([[0, clip.num_frames]]), clip.height, clip.width)

    monkeypatch.setattr(framing, "detect_faces", detect)
    hint = hint_from_point(18, 28, HEIGHT, WIDTH) if hinted else None
    align_as_asked(clip_of(2), AlignSettings(search=asked), TwoFaces().open, hint=hint)
    assert seen == [expected]


def test_known_faces_are_used_instead_of_looking_for_them() -> None:
    faces = TwoFaces()
    known = Detections(((Face(SHAPE + (40, 30), 1.0),),) * 3, np.array([[0, 3]]), HEIGHT, WIDTH)
    aligned = align_as_asked(clip_of(3), AlignSettings(), faces.open, detections=known)
    assert faces.opened == 0 and aligned.quads.mean(axis=1)[0, 0] == pytest.approx(40)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ValueError, match="framing is one of face, face wide"):
        AlignSettings(framing="round")
    with pytest.raises(ValueError, match="custom quad was asked for, but none was given"):
        align_as_asked(clip_of(2), AlignSettings(framing="custom quad"), TwoFaces().open)
    with pytest.raises(ValueError, match="holds 3"):
        quad_from_text("1, 2, 3")
    beside = AlignSettings(framing="custom quad", quad=quad_from_text("80 5 120 45"))
    with pytest.raises(ValueError, match="lies beside the picture, which is 80 x 60 pixels"):
        align_as_asked(clip_of(2), beside, TwoFaces().open)
    boxes = np.array([(10.0, 10, 30, 20), (10.0, -20, 30, -10)])
    with pytest.raises(ValueError, match="of frame 1 lies beside"):
        align_as_asked(clip_of(2), AlignSettings(framing="custom quad"), TwoFaces().open, hint=boxes)
    partly = AlignSettings(framing="custom quad", quad=quad_from_text("60 5 120 65"))
    assert align_as_asked(clip_of(2), partly, TwoFaces().open).quads.shape == (2, 4, 2)
    with pytest.raises(ValueError, match="frame 0 has no area"):
        quad_from_text("5 5 5 5")


def test_points_and_quads_are_read_from_text() -> None:
    assert point_from_text(" ") is None and quad_from_text("") is None
    assert point_from_text("320, 180.5") == (320, 180.5)
    assert point_from_text('[{"x": 12, "y": 34}, {"x": 1, "y": 2}]') == (12, 34)
    assert quad_from_text("(0,0) (0,9) (-9,9) (9, .5)").tolist() == [[0, 0], [0, 9], [-9, 9], [9, 0.5]]
    with pytest.raises(ValueError, match="two numbers"):
        point_from_text("left")


def test_boxes_of_comfyui_in_all_their_shapes() -> None:
    box, other = {"x": 1, "y": 2, "width": 10, "height": 20}, {"x": 5, "y": 5, "width": 1, "height": 1}
    assert hint_from_core_boxes(box, 3).tolist() == [[1, 2, 11, 22]]
    assert hint_from_core_boxes([box, other], 3).tolist() == [[1, 2, 11, 22]]
    found = hint_from_core_boxes([[box], [], [other, box]], 3)
    assert found[[0, 2]].tolist() == [[1, 2, 11, 22], [5, 5, 6, 6]] and np.isnan(found[1]).all()
    with pytest.raises(ValueError, match="empty"):
        hint_from_core_boxes([[], [], []], 3)
    with pytest.raises(ValueError, match="empty"):
        hint_from_core_boxes([], 3)
    with pytest.raises(ValueError, match="there are 2"):
        hint_from_core_boxes([[box], [box]], 3)
    with pytest.raises(ValueError, match="x, y, width and height"):
        hint_from_core_boxes({"left": 1}, 3)


def test_squares_keep_centre_and_longer_side() -> None:
    quads = squares_around(np.array([(0.0, 0, 10, 4)]), 2)
    np.testing.assert_allclose(quads[1], [(0, -3), (0, 7), (10, 7), (10, -3)])


def test_the_report_counts_found_missed_and_away() -> None:
    found = [(Face(SHAPE + (40, 30), 1.0),) if t < 5 or t in (7, 8) else () for t in range(60)]
    known = Detections(tuple(found), np.array([[0, 50], [50, 60]]), HEIGHT, WIDTH)
    aligned = align_as_asked(clip_of(60, cut=50), AlignSettings(), TwoFaces().open, detections=known)
    lines = alignment_report(aligned).splitlines()
    assert lines[0] == "Face found in 7 of 60 frames. Frames are counted from 0."
    assert lines[1] == "Cuts: 1, new shots begin at frames 50."
    text = "\n".join(lines)
    assert "not in the picture, or turned away (these frames stay as they are): 26 frames, 34-59." in text
    assert "Not found, place taken from the frames around: 27 frames, 5-6, 9-33." in text


def test_a_face_that_moved_or_is_out_of_focus_is_less_sharp() -> None:
    rng = np.random.default_rng(0)
    sharp = np.kron(rng.integers(0, 255, (40, 50, 3)), np.ones((3, 3, 1)))
    landmarks = np.array([(10.0, 10), (130, 110)])
    moved = np.mean([np.roll(sharp, shift, axis=1) for shift in range(8)], axis=0)
    brighter = sharp * 0.5 + 100
    values = [face_sharpness(picture.astype(np.uint8), landmarks) for picture in (sharp, moved, brighter)]
    assert values[1] < 0.7 * values[0]
    assert values[2] == pytest.approx(values[0], rel=0.02)
    larger = np.kron(sharp, np.ones((2, 2, 1))).astype(np.uint8)
    assert face_sharpness(larger, 2 * landmarks) == pytest.approx(values[0], rel=0.1)
    assert face_sharpness(larger, landmarks + 1000) == 0


def test_blur_is_judged_shot_by_shot() -> None:
    values = np.array([4.0] * 5 + [1.0] * 5)
    values[[3, 8]] *= 0.5
    found = tuple((replace(Face(SHAPE + (40, 30), 1.0), sharpness=value),) for value in values)
    known = Detections(found, np.array([[0, 5], [5, 10]]), HEIGHT, WIDTH)
    aligned = align_as_asked(clip_of(10, cut=5), AlignSettings(), TwoFaces().open, detections=known)
    assert "Motion blur: 2 frames, 3, 8." in alignment_report(aligned)


def test_too_few_detections_end_the_alignment_unless_they_are_wanted() -> None:
    seen = [(Face(SHAPE + (40, 30), 1.0),) if t == 7 else () for t in range(12)]
    known = Detections(tuple(seen), np.array([[0, 12]]), HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"only 1 of the 12 frames.*Found in frames 7; not in 0-6, 8-11"):
        align_as_asked(clip_of(12), AlignSettings(), TwoFaces().open, detections=known)
    anyway = align_as_asked(clip_of(12), AlignSettings(least_found=0), TwoFaces().open, detections=known)
    assert anyway.track.detected.sum() == 1
    with pytest.raises(ValueError, match="least_found should lie between 0 and 1"):
        AlignSettings(least_found=1.5)
