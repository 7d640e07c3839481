"""Mixing two codes, and paths from one to the other."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from tiny_generators import tiny_mobile
from torch import Tensor

from dynode_pack.dynode_core.artifacts import load_artifact, save_artifact
from dynode_pack.dynode_core.code_stream import CodeStream
from dynode_pack.dynode_core.editing import (
    apply_direction,
    latent_for,
    mix_latents,
    morph_latents,
    sample_of,
    sampled_latents,
)
from dynode_pack.dynode_core.generators.sampling import sample_codes
from dynode_pack.dynode_core.rendering import RenderedFaces
from dynode_pack.dynode_core.tuned_weights import Tuning
from dynode_pack.dynode_core.types import EditDirection, EditedLatent, TrajectorySample

BIG, MOBILE = "stylegan2-ffhq-1024x18", "mobile_stylegan-ffhq-1024"


def latent(seed: int, *, rows: int = 18, family: str = BIG, tuning: Tuning | None = None) -> EditedLatent:
    code = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    return EditedLatent(code, code, (), family, tuning)


def test_weight_zero_is_the_first_and_one_the_second() -> None:
    a, b = latent(0), latent(1)
    assert torch.equal(mix_latents(a, b, 0.0).w_plus_0, a.w_plus_0)
    torch.testing.assert_close(mix_latents(a, b, 1.0).w_plus_0, b.w_plus_0)
    torch.testing.assert_close(mix_latents(a, b, 0.25).w_plus_0, 0.75 * a.w_plus_0 + 0.25 * b.w_plus_0)


def test_only_the_chosen_rows_are_mixed() -> None:
    a, b = latent(0), latent(1)
    mixed = mix_latents(a, b, 1.0, "4-7")
    torch.testing.assert_close(mixed.w_plus_0[4:8], b.w_plus_0[4:8])
    others = [row for row in range(18) if not 4 <= row < 8]
    assert torch.equal(mixed.w_plus_0[others], a.w_plus_0[others])
    assert mixed.edits == ("mix=1@4-7",) and torch.equal(mixed.base_w_plus_0, a.base_w_plus_0)


def test_a_mix_adds_to_earlier_edits_and_changes_nothing_it_was_given() -> None:
    a, b = latent(0), latent(1)
    before = (a.w_plus_0.clone(), b.w_plus_0.clone())
    edited = apply_direction(a, EditDirection("smile", torch.ones(8), "ffhq-w"), 2.0)
    mixed = mix_latents(edited, b, 0.5)
    assert mixed.edits == ("smile=2", "mix=0.5")
    torch.testing.assert_close(mixed.w_plus_0, (edited.w_plus_0 + b.w_plus_0) / 2)
    assert torch.equal(a.w_plus_0, before[0]) and torch.equal(b.w_plus_0, before[1])


def test_a_morph_runs_from_the_first_to_the_second_in_equal_steps() -> None:
    a, b = latent(0), latent(1)
    morph = morph_latents(a, b, 5, Fraction(10), "0-3")
    assert morph.w_plus.shape == (5, 18, 8) and morph.times.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(morph.w_plus[0], a.w_plus_0)
    torch.testing.assert_close(morph.w_plus[-1][:4], b.w_plus_0[:4])
    assert torch.equal(morph.w_plus[-1][4:], a.w_plus_0[4:])
    for place, weight in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        torch.testing.assert_close(morph.w_plus[place], mix_latents(a, b, weight, "0-3").w_plus_0)
        assert torch.equal(morph.base_w_plus[place], a.base_w_plus_0)
    assert morph.edits == ("mix=1@0-3",)
    steps = morph.w_plus[1:] - morph.w_plus[:-1]
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    with pytest.raises(ValueError, match="at least 2 frames"):
        morph_latents(a, b, 1, Fraction(10))


def test_a_long_morph_takes_no_more_memory_than_its_ends() -> None:
    a, b = latent(0), latent(1)
    before = a.w_plus_0.clone()
    morph = morph_latents(a, b, 10_000, Fraction(24))
    assert isinstance(morph.w_plus, CodeStream) and len(morph.w_plus) == len(morph.times) == 10_000
    assert isinstance(morph.base_w_plus, Tensor) and morph.base_w_plus.shape == (10_000, 18, 8)
    assert morph.base_w_plus.untyped_storage().nbytes() == a.base_w_plus_0.numel() * 4
    assert torch.equal(morph.w_plus[[0]][0], a.w_plus_0)
    torch.testing.assert_close(morph.w_plus[9_998:10_000][1], b.w_plus_0)
    a.w_plus_0.zero_()  # the morph is its own
    assert torch.equal(morph.w_plus[0], before) and torch.equal(morph.base_w_plus[5], before)


def test_a_morph_is_written_and_read_back(tmp_path: Path) -> None:
    morph = morph_latents(latent(0), latent(1), 4, Fraction(12))
    save_artifact(morph, tmp_path / "morph.safetensors")
    again = load_artifact(tmp_path / "morph.safetensors", TrajectorySample)
    assert torch.equal(again.w_plus[:], morph.w_plus[:]) and torch.equal(again.base_w_plus[:], morph.base_w_plus)


def test_codes_of_two_generators_mix_only_where_codes_move() -> None:
    a, w = latent(0, rows=23, family=MOBILE), torch.randn(1, 8).expand(18, 8)
    moved = mix_latents(a, EditedLatent(w, w, (), BIG), 1.0)
    assert moved.family == MOBILE
    torch.testing.assert_close(moved.w_plus_0, w[:1].expand(23, 8))
    with pytest.raises(ValueError, match="can't be moved"):
        mix_latents(a, latent(1, rows=16, family="stylegan2-car-512x16"), 0.5)


def test_tuned_codes_keep_their_generator() -> None:
    one, two = (Tuning({"x": torch.full((2,), value)}) for value in (1.0, 2.0))
    a, b = latent(0, tuning=one), latent(1)
    assert mix_latents(a, b, 0.5).tuning is one and mix_latents(b, a, 0.5).tuning is one
    again = latent(1, tuning=Tuning({"x": torch.full((2,), 1.0)}))
    assert mix_latents(a, again, 0.5).tuning is one
    with pytest.raises(ValueError, match="one clip each"):
        mix_latents(a, latent(1, tuning=two), 0.5)
    with pytest.raises(ValueError, match="tuned for its own generator"):
        latent_for(a, MOBILE, torch.Size((23, 8)))


def test_sampled_codes_render_as_the_generator_draws_them() -> None:
    generator = tiny_mobile()
    codes = sample_codes(generator, [1, 2], truncation_psi=0.5)
    sample = sample_of(sampled_latents(codes, generator))
    faces = RenderedFaces(generator, sample, 64)
    with torch.no_grad():
        torch.testing.assert_close(faces.read(0, 2), generator.synthesize(codes, size=64), rtol=1e-4, atol=1e-4)
    base = faces.read_base(0, 1)
    assert base is not None and torch.equal(base, faces.read(0, 1))


def test_codes_of_several_families_are_not_one_sample() -> None:
    with pytest.raises(ValueError, match="one generator family"):
        sample_of([latent(0), latent(1, rows=23, family=MOBILE)])
    with pytest.raises(ValueError, match="there are none"):
        sample_of([])
