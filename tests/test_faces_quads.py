"""FFHQ quads and their smoothing against the numbers of the published code, and properties of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dynode_pack.dynode_core.faces.quads import (
    axes_to_quads,
    eyes_and_mouth,
    ffhq_axes,
    ffhq_quads,
    quad_sides_px,
    quads_to_axes,
    smooth_quads,
)
from dynode_pack.dynode_core.faces.smoothing import fill_missing, smooth_over_time

TOLERANCE_PX = 1e-6


@pytest.fixture(scope="module")
def stit(golden: Callable[[str], Path]) -> dict[str, np.ndarray]:
    return load_file(golden("stit_alignment_paste_stitch.safetensors"))


def made_up_face(scale: float = 1.0, roll_deg: float = 0.0, center: tuple[float, float] = (200.0, 180.0)) -> np.ndarray:
    """`(1, 68, 2)` with eyes 60 px apart and the mouth 70 px below them, scaled, rolled and moved."""
    points = np.zeros((68, 2))
    ring = np.stack([np.cos(np.arange(6) * np.pi / 3) * 12, np.sin(np.arange(6) * np.pi / 3) * 5], axis=1)
    points[36:42], points[42:48] = ring + (-30, 0), ring + (30, 0)
    points[48], points[54] = (-22, 70), (22, 70)
    angle = np.radians(roll_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points * scale @ turn.T + center)[None]


@pytest.mark.parametrize("scale", ["1.0", "1.2"])
@pytest.mark.parametrize("landmarks", ["seq", "hard"])
def test_quads_equal_those_of_the_published_code(stit: dict[str, np.ndarray], landmarks: str, scale: str) -> None:
    center, x, y = ffhq_axes(stit[f"{landmarks}.landmarks"], float(scale))
    for name, value in (("c", center), ("x", x), ("y", y), ("quad", axes_to_quads(center, x, y))):
        np.testing.assert_allclose(value, stit[f"{landmarks}.scale{scale}.{name}"], atol=TOLERANCE_PX)


@pytest.mark.parametrize("center_sigma, axes_sigma", [(1, 3), (0, 3), (0, 0)])
def test_smoothing_equals_that_of_the_published_code(
    stit: dict[str, np.ndarray], center_sigma: int, axes_sigma: int
) -> None:
    smoothed = smooth_quads(ffhq_quads(stit["seq.landmarks"]), center_sigma, axes_sigma)
    expected = stit[f"seq.smooth_c{center_sigma}.0_xy{axes_sigma}.0.quad"]
    np.testing.assert_allclose(smoothed, expected, atol=TOLERANCE_PX)


def test_quad_turns_moves_and_grows_with_the_face() -> None:
    base = ffhq_quads(made_up_face(center=(0, 0)))[0]
    for roll_deg in (-170, -60, 30, 90):
        angle = np.radians(roll_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        quad = ffhq_quads(made_up_face(scale=1.7, roll_deg=roll_deg, center=(40, -15)))[0]
        np.testing.assert_allclose(quad, base * 1.7 @ turn.T + (40, -15), atol=1e-9)


def test_quad_is_a_square_in_the_order_top_left_bottom_left_bottom_right_top_right() -> None:
    top_left, bottom_left, bottom_right, top_right = ffhq_quads(made_up_face())[0]
    assert top_left[0] < top_right[0] and top_left[1] < bottom_left[1]
    np.testing.assert_allclose(top_right - top_left, bottom_right - bottom_left)
    assert np.linalg.norm(top_right - top_left) == pytest.approx(np.linalg.norm(bottom_left - top_left))


def test_scale_grows_the_quad_about_its_centre() -> None:
    narrow, wide = ffhq_quads(made_up_face(), 1.0), ffhq_quads(made_up_face(), 1.2)
    np.testing.assert_allclose(narrow.mean(axis=1), wide.mean(axis=1))
    np.testing.assert_allclose(quad_sides_px(wide), quad_sides_px(narrow) * 1.2)


def test_axes_and_quads_convert_both_ways() -> None:
    quads = ffhq_quads(np.concatenate([made_up_face(roll_deg=a) for a in (0, 20, -50)]))
    np.testing.assert_allclose(axes_to_quads(*quads_to_axes(quads)), quads, atol=1e-9)


def test_mesh_and_68_points_name_the_same_places() -> None:
    mesh = np.zeros((1, 478, 2))
    mesh[0, [33, 160, 158, 133, 153, 144]] = (10, 20)
    mesh[0, [362, 385, 387, 263, 373, 380]] = (30, 20)
    mesh[0, [61, 291]] = (20, 45)
    left, right, mouth = eyes_and_mouth(mesh)
    assert left.tolist() == [[10, 20]] and right.tolist() == [[30, 20]]
    assert mouth[0] == pytest.approx((20, 45), rel=0.02)


def test_smoothing_leaves_a_constant_and_a_single_frame_alone() -> None:
    constant = np.repeat(ffhq_quads(made_up_face()), 5, axis=0)
    np.testing.assert_allclose(smooth_quads(constant, 2, 4), constant)
    np.testing.assert_array_equal(smooth_quads(constant[:1], 2, 4), constant[:1])


def test_smoothing_does_not_change_its_input() -> None:
    values = np.random.default_rng(0).normal(size=(9, 3))
    before = values.copy()
    smooth_over_time(values, 2.0)
    np.testing.assert_array_equal(values, before)


def test_missing_values_are_linear_in_time_between_and_held_at_the_ends() -> None:
    values = np.array([[9.0], [1.0], [9.0], [9.0], [5.0], [9.0]])
    known = np.array([False, True, False, False, True, False])
    times = np.array([0.0, 1.0, 1.5, 3.0, 5.0, 6.0])
    np.testing.assert_allclose(fill_missing(values, known, times)[:, 0], [1, 1, 1.5, 3, 5, 5])


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="68 landmarks.*has 5"):
        ffhq_quads(np.ones((1, 5, 2)))
    with pytest.raises(ValueError, match="eyes and mouth lie on one point"):
        ffhq_quads(np.ones((2, 68, 2)))
    with pytest.raises(ValueError, match="NaN"):
        ffhq_quads(np.full((1, 68, 2), np.nan))
    with pytest.raises(ValueError, match="scale"):
        ffhq_quads(made_up_face(), 0.0)
    with pytest.raises(ValueError, match="smoothing"):
        smooth_quads(ffhq_quads(made_up_face()), -1, 0)
    with pytest.raises(ValueError, match="no known frame"):
        fill_missing(np.zeros((2, 1)), np.zeros(2, dtype=bool))
