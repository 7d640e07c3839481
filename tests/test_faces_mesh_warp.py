"""Every point of a face found again in another frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.faces.masks import outline_indices
from dynode_pack.dynode_core.faces.mesh_warp import FaceMesh

SIZE = 96
UPPER, LOWER = (13, 312, 311, 310, 82, 81, 80), (14, 317, 402, 318, 87, 178, 88)
CORNERS = (78, 308)


def mesh(opening: float = 0.0) -> np.ndarray:
    """A 478-point face: the outline on an ellipse, the inner lips on two lines, everything else spread inside."""
    outline = outline_indices(478)
    angles = np.arange(len(outline)) / len(outline) * 2 * np.pi
    points = np.full((478, 2), np.nan)
    points[list(outline)] = np.stack([0.5 + 0.24 * np.sin(angles), 0.5 - 0.3 * np.cos(angles)], axis=1)
    across = np.linspace(0.42, 0.58, 9)
    points[list(CORNERS)] = [(0.42, 0.64), (0.58, 0.64)]
    points[list(UPPER)] = np.stack([across[1:-1], np.full(7, 0.64)], axis=1)
    points[list(LOWER)] = np.stack([across[1:-1], np.full(7, 0.641 + opening)], axis=1)
    points[1] = (0.5, 0.53)
    free = np.flatnonzero(np.isnan(points[:, 0]))
    random = np.random.default_rng(0)
    radius, angle = 0.95 * np.sqrt(random.random(len(free))), random.random(len(free)) * 2 * np.pi
    spread = np.stack([0.5 + 0.24 * radius * np.sin(angle), 0.5 - 0.3 * radius * np.cos(angle)], axis=1)
    lips = (np.abs(spread[:, 0] - 0.5) < 0.1) & (np.abs(spread[:, 1] - 0.66) < 0.05)
    spread[lips] -= (0.0, 0.3)
    points[free] = spread
    return points


def positions(grid: torch.Tensor) -> np.ndarray:
    """`(S, S, 2)` places in units of the crop."""
    return (grid[0].numpy() + 1) / 2


def pixel_centres() -> np.ndarray:
    centre = (np.arange(SIZE) + 0.5) / SIZE
    return np.stack(np.meshgrid(centre, centre), axis=-1)


def test_a_face_at_rest_stays_where_it_is():
    places = FaceMesh(mesh()).places(mesh(), SIZE)
    inside = places.share[0].numpy() > 0
    assert inside[SIZE // 2, SIZE // 2] and 0.4 < inside.mean() < 0.95
    np.testing.assert_allclose(positions(places.grid)[inside], pixel_centres()[inside], atol=1e-6)
    assert float(places.share[0, SIZE // 2, SIZE // 2]) == 1


@pytest.mark.parametrize("points", [478, 468])
def test_an_affine_motion_is_undone_exactly(points):
    matrix, shift = np.array([[1.1, 0.12], [-0.1, 0.95]]), np.array([-0.03, 0.04])
    anchor = mesh()[:points]
    places = FaceMesh(anchor).places(anchor @ matrix.T + shift, SIZE)
    inside = places.share[0].numpy() > 0
    expected = (pixel_centres() - shift) @ np.linalg.inv(matrix).T
    np.testing.assert_allclose(positions(places.grid)[inside], expected[inside], atol=1e-5)
    assert inside.mean() > 0.4


def test_what_lies_beyond_the_rings_is_not_carried():
    assert float(FaceMesh(mesh()).places(mesh(), SIZE).share[0, :2, :2].max()) == 0


def test_the_inside_of_an_opening_mouth_shows_nothing_and_the_cheeks_do():
    closed, open_mouth = mesh(0.0), mesh(0.08)
    share = FaceMesh(closed).places(open_mouth, SIZE).share[0]
    assert float(share[int(0.68 * SIZE), SIZE // 2]) == 0
    assert float(share[int(0.5 * SIZE), int(0.35 * SIZE)]) > 0.9


def test_a_side_that_has_turned_away_shows_nothing():
    turned = mesh()
    left = turned[:, 0] < 0.5
    turned[left, 0] = 0.5 + 0.3 * (0.5 - turned[left, 0])  # folded over to the other side
    share = FaceMesh(mesh()).places(turned, SIZE).share[0]
    still_seen = FaceMesh(mesh()).places(mesh(), SIZE).share[0]
    assert float(share[:, : SIZE // 3].max()) == 0
    assert float(share[SIZE // 2, int(0.7 * SIZE)]) > 0.9 and float(still_seen[SIZE // 2, int(0.3 * SIZE)]) == 1


def test_a_narrowing_side_fades_before_it_has_gone():
    def middle_share(width: float) -> float:
        turned = mesh()
        turned[:, 0] = 0.5 + (turned[:, 0] - 0.5) * width
        return float(FaceMesh(mesh()).places(turned, SIZE).share[0, SIZE // 2, SIZE // 2])

    shares = [middle_share(width) for width in (1.0, 0.5, 0.2, 0.05)]
    assert shares[0] == shares[1] == 1 and shares[1] > shares[2] > shares[3] and shares[3] < 0.05


def test_trembling_landmarks_tear_nothing():
    random = np.random.default_rng(1)
    share = FaceMesh(mesh()).places(mesh() + random.normal(0, 0.0015, (478, 2)), SIZE).share[0]
    middle = share[SIZE // 3 : SIZE * 3 // 5, SIZE // 3 : SIZE * 2 // 3]
    assert float(middle.min()) > 0.7 and float(middle.mean()) > 0.98


def test_bad_landmarks_are_refused():
    with pytest.raises(ValueError, match="68 landmarks"):
        FaceMesh(np.random.default_rng(0).random((20, 2)))
    with pytest.raises(ValueError, match="one line"):
        FaceMesh(np.full((68, 2), 0.5))
    with pytest.raises(ValueError, match="478"):
        FaceMesh(mesh()).places(mesh()[:468], SIZE)
