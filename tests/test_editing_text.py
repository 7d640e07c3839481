"""An edit from words, with plain functions as encoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.editing.text import TextSettings, edit_by_text, words_direction
from dynode_pack.dynode_core.types import EditedLatent

WIDTH = 24


@pytest.fixture(scope="module")
def generator():
    return tiny_mobile()


@pytest.fixture(scope="module")
def latent(generator) -> EditedLatent:
    code = generator.map(torch.randn(1, 16, generator=torch.Generator().manual_seed(2)), truncation_psi=0.4)[0]
    return EditedLatent(code, code, ("smile=1",), generator.family)


def embed(images: torch.Tensor) -> torch.Tensor:
    """A fixed random view of the small picture."""
    matrix = torch.randn(3 * 64, WIDTH, generator=torch.Generator().manual_seed(0))
    return F.adaptive_avg_pool2d(images, 8).flatten(1) @ matrix


@pytest.fixture(scope="module")
def direction(generator) -> torch.Tensor:
    other = generator.map(torch.randn(1, 16, generator=torch.Generator().manual_seed(9)), truncation_psi=0.7)
    with torch.no_grad():
        return F.normalize(embed(generator.synthesize(other))[0], dim=0)


def test_the_picture_comes_nearer_to_the_words(generator, latent, direction) -> None:
    found = edit_by_text(latent, generator, embed, direction, TextSettings(steps=30), label="a beard")
    assert 1 - found.after < 0.3 * (1 - found.before)
    assert found.latent.edits == ("smile=1", "a beard=1") and torch.equal(
        found.latent.base_w_plus_0, latent.base_w_plus_0
    )


def test_the_same_seed_gives_the_same_edit_and_another_one_another(generator, latent, direction) -> None:
    codes = [
        edit_by_text(latent, generator, embed, direction, TextSettings(steps=6, seed=seed)).latent.w_plus_0
        for seed in (1, 1, 2)
    ]
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])


def test_distance_holds_the_code_near(generator, latent, direction) -> None:
    moved = [
        float((edit_by_text(latent, generator, embed, direction, settings).latent.w_plus_0 - latent.w_plus_0).norm())
        for settings in (TextSettings(steps=30, distance=0.0), TextSettings(steps=30, distance=20.0))
    ]
    assert moved[1] < 0.5 * moved[0]


def test_the_identity_loss_holds_the_picture(generator, latent, direction) -> None:
    with torch.no_grad():
        before = generator.synthesize(latent.w_plus_0[None])

    def identity(images: torch.Tensor) -> torch.Tensor:
        return (images - before).square().mean(dim=(1, 2, 3))

    changes = []
    for weight in (0.0, 30.0):
        settings = TextSettings(steps=30, identity=weight, distance=0.0)
        code = edit_by_text(latent, generator, embed, direction, settings, identity=identity).latent.w_plus_0
        with torch.no_grad():
            changes.append(float(identity(generator.synthesize(code[None]))))
    assert changes[1] < 0.7 * changes[0]


def test_strength_and_layers(generator, latent, direction) -> None:
    settings = [TextSettings(steps=5, strength=s, layers="2-4") for s in (1.0, -2.0)]
    one, other = (edit_by_text(latent, generator, embed, direction, s).latent for s in settings)
    torch.testing.assert_close(other.w_plus_0 - latent.w_plus_0, -2 * (one.w_plus_0 - latent.w_plus_0))
    assert (one.w_plus_0 != latent.w_plus_0).any(dim=1).nonzero().flatten().tolist() == [2, 4]  # row 3 draws nothing
    assert one.edits[-1] == "text=1@2-4"


def test_cancelling_comes_through(generator, latent, direction) -> None:
    def cancel(done: int, total: int, preview: np.ndarray | None = None) -> None:
        assert total == 9 and preview is not None and preview.shape == (128, 256, 3)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit_by_text(latent, generator, embed, direction, TextSettings(steps=9), progress=cancel)


def test_words_are_a_direction_between_two_texts() -> None:
    target, neutral = torch.tensor([3.0, 0, 4]), torch.tensor([5.0, 0, 0])
    torch.testing.assert_close(words_direction(target), torch.tensor([0.6, 0, 0.8]))
    torch.testing.assert_close(words_direction(target, neutral), F.normalize(torch.tensor([-0.4, 0, 0.8]), dim=0))
    with pytest.raises(ValueError, match="mean the same"):
        words_direction(target, 2 * target)
    with pytest.raises(ValueError, match="NaN"):
        words_direction(torch.tensor([torch.nan, 1.0]))
    with pytest.raises(ValueError, match="3 and 2 numbers"):
        words_direction(target, torch.ones(2))


def test_encoders_that_do_not_fit_are_refused(generator, latent, direction) -> None:
    with pytest.raises(ValueError, match=r"5 numbers, but the picture's has shape \(24,\)"):
        edit_by_text(latent, generator, embed, torch.ones(5), TextSettings(steps=1))
    with pytest.raises(RuntimeError, match="No gradient"):
        edit_by_text(latent, generator, lambda x: embed(x.detach()), direction, TextSettings(steps=1))
    with pytest.raises(RuntimeError, match="NaN"):
        edit_by_text(latent, generator, lambda x: embed(x) * torch.nan, direction, TextSettings(steps=1))
    with pytest.raises(ValueError, match="steps and views"):
        TextSettings(steps=0)
