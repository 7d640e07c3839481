"""Losses on pictures along a path: what training of a trajectory minimises through the generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from problems import inverted_clip
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.inversion.path_loss import SMALLEST_PX, PathPictureLoss
from dynode_pack.dynode_core.ode import GradientSettings, train_trajectory

GENERATOR = tiny_mobile()
SIZE = GENERATOR.resolution


def codes(count: int, seed: int = 0) -> torch.Tensor:
    shape = (count, GENERATOR.num_ws, GENERATOR.w_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def loss(monkeypatch: pytest.MonkeyPatch) -> PathPictureLoss:
    monkeypatch.setattr("dynode_pack.dynode_core.inversion.path_loss.SMALLEST_PX", min(SIZE, SMALLEST_PX))
    return PathPictureLoss(GENERATOR, None, SIZE, image_weight=2.0, feature_weight=0.0)


def test_it_is_the_mean_square_of_the_pictures_with_gradients_to_the_solved_codes(loss: PathPictureLoss) -> None:
    solved, observed = codes(3, 1).requires_grad_(), codes(3, 2)
    times = np.arange(3) / 25
    value = loss(solved, observed, times)
    with torch.no_grad():
        pictures = [GENERATOR.synthesize(part, size=SIZE) for part in (solved, observed)]
    assert float(value.detach()) == pytest.approx(2 * float((pictures[0] - pictures[1]).square().mean()), rel=1e-4)
    value.backward()
    assert solved.grad is not None and bool(solved.grad.flatten(1).any(dim=1).all())
    assert float(loss(observed, observed, times)) == 0.0


def test_training_with_it_is_kept_under_its_own_name(loss: PathPictureLoss, tmp_path: Path) -> None:
    clip = inverted_clip(codes(4), np.arange(4) / 25)
    settings = GradientSettings(steps=2, hidden=8, batch=2, picture_weight=1.0)
    for kept in (1, 1):
        train_trajectory(clip, settings, picture_loss=loss, picture_loss_id=loss.loss_id, cache_dir=tmp_path)
        assert len(list(tmp_path.iterdir())) == kept
    assert loss.loss_id.startswith(GENERATOR.generator_id)


def test_bad_sizes_and_a_missing_network_are_refused(loss: PathPictureLoss) -> None:
    with pytest.raises(ValueError, match="size of pictures in the loss"):
        PathPictureLoss(GENERATOR, None, 7, feature_weight=0.0)
    with pytest.raises(ValueError, match="feature loss needs"):
        PathPictureLoss(GENERATOR, None, SIZE)
