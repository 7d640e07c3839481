"""Pivotal tuning: codes stay, the generator comes to them, and other faces stay what they were."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from test_inversion import _aligned
from tiny_generators import other_person, tiny_mobile, tiny_stylegan2

from dynode_pack.dynode_core.generators.tuning import with_tuning
from dynode_pack.dynode_core.inversion.pivotal import PivotalSettings, tune_to_pivots, tuned_generator
from dynode_pack.dynode_core.tuned_weights import Tuning
from dynode_pack.dynode_core.types import AlignedClip, InvertedClip

MAKERS = [tiny_mobile, lambda: tiny_stylegan2(64, "stylegan2-tiny-64x10")]
FAST = PivotalSettings(rounds=6, rate=0.06, target=0.0, locality_weight=0.0)


def _scene(generator: Any, frames: int = 3) -> tuple[AlignedClip, InvertedClip]:
    """A clip of faces of another person, and the codes with which this person would show them."""
    random = torch.Generator().manual_seed(1)
    w_plus = generator.map(torch.randn(frames, generator.z_dim, generator=random), truncation_psi=0.7)
    with torch.no_grad():
        pictures = with_tuning(generator, other_person(generator)).synthesize(w_plus)
    aligned = _aligned(((pictures + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).contiguous())
    codes = InvertedClip(
        w_plus=w_plus,
        times=aligned.clip.frame_times,
        frame_indices=np.arange(frames),
        loss=np.zeros(frames, np.float32),
        frame_times=aligned.clip.frame_times,
        fps=Fraction(25),
        family=generator.family,
        generator_id=generator.generator_id,
    )
    return aligned, codes


@pytest.mark.parametrize("make", MAKERS)
def test_tuning_shows_the_person_at_the_same_codes(make: Any) -> None:
    generator = make()
    untouched = {name: weight.clone() for name, weight in generator.state_dict().items()}
    aligned, codes = _scene(generator)
    result = tune_to_pivots(aligned, codes, generator, FAST, perceptual=None)
    assert result.after.mse < 0.6 * result.before.mse
    assert torch.equal(result.codes.w_plus, codes.w_plus)
    assert codes.tuning is None and result.codes.tuning is not None
    assert all(torch.equal(untouched[name], weight) for name, weight in generator.state_dict().items())
    tuned = tuned_generator(generator, result.codes.tuning)
    with torch.no_grad():
        once = with_tuning(generator, result.codes.tuning).synthesize(codes.w_plus[:1])
        assert torch.equal(tuned.synthesize(codes.w_plus[:1]), once)
    assert tuned.generator_id != generator.generator_id and tuned.family == generator.family
    shared = {weight.data_ptr() for weight in generator.parameters()} & {w.data_ptr() for w in tuned.parameters()}
    assert not shared


def test_locality_keeps_other_faces() -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator)
    free = tune_to_pivots(aligned, codes, generator, FAST, perceptual=None)
    kept = tune_to_pivots(aligned, codes, generator, replace(FAST, locality_weight=3.0), perceptual=None)
    assert kept.after.elsewhere < 0.6 * free.after.elsewhere
    assert kept.after.mse < kept.before.mse
    assert free.before.elsewhere == 0


def test_tuning_ends_when_a_round_hardly_helps_and_goes_on_from_earlier_weights() -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator)
    still = tune_to_pivots(aligned, codes, generator, replace(FAST, rate=0.0), perceptual=None)
    assert still.rounds == 4 and not still.helped
    assert still.codes is codes and "nothing is changed" in still.report
    first = tune_to_pivots(aligned, codes, generator, replace(FAST, rounds=3), perceptual=None)
    second = tune_to_pivots(aligned, first.codes, generator, replace(FAST, rounds=3), perceptual=None)
    assert second.before.mse == pytest.approx(first.after.mse, rel=1e-4)
    assert second.after.mse < first.after.mse


def test_weights_tuned_deeper_before_stay_in_the_result() -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator)
    deep = tune_to_pivots(aligned, codes, generator, replace(FAST, rounds=2, depth=128), perceptual=None).codes
    flat = tune_to_pivots(aligned, deep, generator, replace(FAST, rounds=2, depth=16), perceptual=None).codes
    assert deep.tuning is not None and flat.tuning is not None
    assert flat.tuning.weights.keys() == deep.tuning.weights.keys()
    last = "layers.3.conv2.pointwise"
    assert torch.equal(flat.tuning.weights[last], deep.tuning.weights[last])
    assert not torch.equal(
        flat.tuning.weights["layers.0.conv2.pointwise"], deep.tuning.weights["layers.0.conv2.pointwise"]
    )


def test_same_seed_gives_the_same_weights_and_few_pivots_are_spread() -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator, frames=5)
    settings = replace(FAST, rounds=2, keyframes=3)
    one, other = (tune_to_pivots(aligned, codes, generator, settings, perceptual=None) for _ in range(2))
    assert one.pivots == (0, 2, 4)
    assert one.codes.tuning is not None and other.codes.tuning is not None
    for name, weight in one.codes.tuning.weights.items():
        assert torch.equal(weight, other.codes.tuning.weights[name])


def test_what_does_not_belong_together_is_refused() -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator)
    with pytest.raises(ValueError, match="family"):
        tune_to_pivots(aligned, replace(codes, family="other"), generator, FAST, perceptual=None)
    with pytest.raises(ValueError, match="which this generator does not have"):
        foreign = replace(codes, tuning=Tuning({"nothing.weight": torch.zeros(3)}))
        tune_to_pivots(aligned, foreign, generator, FAST, perceptual=None)
    with pytest.raises(ValueError, match="reach frame 7"):
        far = replace(codes, frame_indices=np.array([0, 1, 7]))
        tune_to_pivots(aligned, far, generator, FAST, perceptual=None)
    with pytest.raises(ValueError, match="rounds should lie between 1 and 1000"):
        PivotalSettings(rounds=0)


def test_cancelling_stops_at_once() -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator)
    seen = []

    def cancel(done: int, total: int, preview: Any = None) -> None:
        seen.append((done, total))
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_to_pivots(aligned, codes, generator, FAST, perceptual=None, progress=cancel)
    assert [done for done, _ in seen] == list(range(1, 9))
