"""Soft masks of face regions: areas, orders and edges that can be computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.faces.masks import _OVAL_478, REGIONS, face_mask, region_outline
from dynode_pack.dynode_core.faces.preview import draw_alignment


def mesh(center: tuple[float, float], radius: float, roll_deg: float = 0.0) -> np.ndarray:
    """`(1, 478, 2)`: an oval of circle shape with brows at 0.35 radius above the middle."""
    points = np.zeros((478, 2))
    angle = np.arange(len(_OVAL_478)) * 2 * np.pi / len(_OVAL_478)
    points[list(_OVAL_478)] = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    for i, index in enumerate((70, 63, 105, 66, 107, 336, 296, 334, 293, 300)):
        points[index] = (-0.7 + 1.4 * i / 9, -0.35)
    turn = np.radians(roll_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (points @ rotation.T * radius + center)[None]


def jaw_and_brows() -> np.ndarray:
    """`(1, 68, 2)`: a half-circle jaw and straight brows."""
    points = np.zeros((68, 2))
    angle = np.linspace(0, np.pi, 17)
    points[:17] = np.stack([-np.cos(angle), np.sin(angle)], axis=1) * 60
    points[17:27] = np.stack([np.linspace(-45, 45, 10), np.full(10, -25.0)], axis=1)
    return points[None] + (200, 180)


def test_hard_face_mask_has_the_area_of_the_oval() -> None:
    mask = face_mask(mesh((150.3, 120.8), 80), 240, 300, feather=0)
    corners = len(_OVAL_478)
    area = corners / 2 * np.sin(2 * np.pi / corners) * 80**2
    assert float(mask.sum()) == pytest.approx(area, rel=0.002)
    assert mask.min() == 0 and mask.max() == 1


def test_mask_moves_by_fractions_of_a_pixel_without_flicker() -> None:
    sums = [float(face_mask(mesh((100 + d, 100 + 0.7 * d), 60), 200, 200).sum()) for d in np.linspace(0, 1, 7)]
    assert max(sums) - min(sums) < 2e-4 * max(sums)
    half = face_mask(mesh((100.5, 100), 60), 200, 200)
    whole = [face_mask(mesh((100 + d, 100), 60), 200, 200) for d in (0, 1)]
    assert (half - (whole[0] + whole[1]) / 2).abs().max() < 0.02


def test_feather_is_centred_on_the_outline_and_dilate_moves_it() -> None:
    points = mesh((100, 100), 60)
    height = region_outline(points[0], "face")[1]
    mask = face_mask(points, 200, 200, dilate=0.1, feather=0.2)[0]
    row = mask[100, 100:].numpy()
    edge = np.interp(0.5, row[::-1], np.arange(100)[::-1] + 0.5)
    assert edge == pytest.approx(60 + 0.1 * height, abs=0.6)
    ramp = np.interp([0.02, 0.98], row[::-1], np.arange(100)[::-1] + 0.5)
    assert 0.1 * height < ramp[0] - ramp[1] < 0.2 * height


@pytest.mark.parametrize("points", [mesh((200, 180), 60, 25.0), None])
def test_regions_contain_each_other(points: np.ndarray | None) -> None:
    points = jaw_and_brows() if points is None else points
    masks = {region: face_mask(points, 400, 400, region=region)[0] for region in REGIONS}
    for small, large in (
        ("inner face", "face"),
        ("face", "face and forehead"),
        ("face and forehead", "face, forehead and ears"),
        ("face and forehead", "face, forehead and neck"),
        ("face, forehead and ears", "head and neck"),
    ):
        assert (masks[large] >= masks[small] - 1e-6).all(), (small, large)
        assert masks[large].sum() > masks[small].sum() * 1.02, (small, large)


def test_large_masks_agree_with_small_ones() -> None:
    small = face_mask(mesh((150, 150), 100), 300, 300)
    large = face_mask(mesh((900, 900), 600), 1800, 1800)
    reduced = torch.nn.functional.avg_pool2d(large, 6)
    assert (reduced - small).abs().max() < 0.01


def test_faces_outside_the_frame_give_an_empty_mask() -> None:
    assert face_mask(mesh((-500, 40), 60), 100, 120).sum() == 0
    assert face_mask(mesh((10, 40), 60), 100, 120)[0, 40, 0] == 1


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="region should be one of"):
        face_mask(mesh((1, 1), 5), 9, 9, region="nose")
    with pytest.raises(ValueError, match="feather"):
        face_mask(mesh((1, 1), 5), 9, 9, feather=-1)
    with pytest.raises(ValueError, match="68 landmarks"):
        face_mask(np.zeros((1, 12, 2)), 9, 9)


def test_drawing_marks_interpolated_frames_and_leaves_the_frame_alone() -> None:
    frame = np.zeros((60, 80, 3), dtype=np.uint8)
    quad = np.array([(10, 10), (10, 50), (50, 50), (50, 10)], dtype=float)
    found, missed = (draw_alignment(frame, quad, np.array([[30.0, 30.0]]), detected) for detected in (True, False))
    assert frame.sum() == 0
    assert found.shape == (60, 80, 3) and found.dtype == np.uint8
    assert found[30, 10].argmax() == 1 and missed[30, 10].argmax() == 0
    assert (found[30, 30] == 255).all()
    np.testing.assert_array_equal(draw_alignment(frame / 255.0, quad, None, True)[30, 10], found[30, 10])
