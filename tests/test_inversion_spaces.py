"""Where codes may lie, and what the losses weigh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_inversion import _aligned, _clip_of
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.inversion import InversionSettings, LossWeights, invert_clip
from dynode_pack.dynode_core.inversion.code_space import SharedRows, measure_code_space
from dynode_pack.dynode_core.inversion.emphasis import emphasis_map
from dynode_pack.dynode_core.inversion.mesh_regions import FACE_OVAL, LEFT_EYE, LIPS, RIGHT_EYE
from dynode_pack.dynode_core.inversion.settings import NEAR_W, SPACES, W_ONLY, W_PLUS


@pytest.fixture(scope="module")
def spreads() -> dict[str, float]:
    """How far the rows of the codes differ that are found for faces of the generator itself."""
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 2)
    found = {}
    for space in SPACES:
        settings = InversionSettings(
            "draft", keyframe_every=1, tune=False, space=space, weights=LossWeights(row_mean=0.1)
        )
        inverted = invert_clip(aligned, generator, settings, perceptual=None)
        assert inverted.report["space"] == space
        w_plus = inverted.w_plus
        found[space] = float((w_plus - w_plus.mean(dim=1, keepdim=True)).square().mean())
    return found


def test_codes_of_w_have_equal_rows(spreads: dict[str, float]) -> None:
    assert spreads[W_ONLY] < 1e-10


def test_a_penalty_keeps_rows_together_and_w_plus_lets_them_go(spreads: dict[str, float]) -> None:
    assert 0 < spreads[NEAR_W] < 0.5 * spreads[W_PLUS]


def test_w_is_a_coordinate_of_the_mean_row() -> None:
    generator = tiny_mobile()
    space = measure_code_space(generator)
    shared = SharedRows.of(space, generator.num_ws)
    w_plus = torch.randn(3, generator.num_ws, 16, generator=torch.Generator().manual_seed(0))
    coordinates = shared.encode(w_plus)
    assert coordinates.shape == (3, 1, 16)
    torch.testing.assert_close(shared.decode(coordinates), w_plus.mean(dim=1, keepdim=True).expand_as(w_plus))


def _circle(count: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.array(centre) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_eyes_and_mouth_weigh_as_much_as_asked_for() -> None:
    landmarks = np.full((1, 478, 2), 50.0)
    for part, centre, radius in (
        (FACE_OVAL, (50, 50), 40),
        (LEFT_EYE, (65, 40), 6),
        (RIGHT_EYE, (35, 40), 6),
        (LIPS, (50, 75), 7),
    ):
        landmarks[0, list(part)] = _circle(len(part), centre, radius)
    aligned = _aligned(torch.zeros(1, 100, 100, 3), landmarks)

    def over_cheek(weight: float) -> list[float]:
        found = emphasis_map(aligned, 0, 100, weight)[0, 0]
        assert float(found.mean()) == pytest.approx(1, abs=1e-4)
        return [float(found[y, x] / found[60, 20]) for y, x in ((75, 50), (40, 65), (40, 35))]

    assert over_cheek(1.0) == pytest.approx([1, 1, 1], abs=0.02)
    assert over_cheek(6.0) == pytest.approx([6, 6, 6], rel=0.05)
    assert over_cheek(12.0) == pytest.approx([12, 12, 12], rel=0.05)


def test_senseless_weights_and_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="perceptual should be 0 or more"):
        LossWeights(perceptual=-1.0)
    with pytest.raises(ValueError, match="space should be one of"):
        InversionSettings(space="Z")


def test_keyframes_found_apart_do_not_know_of_each_other() -> None:
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 4)
    apart = InversionSettings("draft", keyframe_every=1, max_steps=6, together=False)
    steps: list[tuple[int, int]] = []
    every = invert_clip(
        aligned, generator, apart, perceptual=None, progress=lambda done, total, _=None: steps.append((done, total))
    )
    last = _aligned(aligned.clip.read([2, 3]), aligned.track.landmarks[2:])
    alone = invert_clip(last, generator, apart, perceptual=None)
    torch.testing.assert_close(every.w_plus[2:], alone.w_plus)
    assert every.tuning is None and steps[-1][0] == steps[-1][1]
