"""Tuned weights of each shot: found apart, kept apart in files, and used where their shot is."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stitching_scene import stitching_scene
from test_pivotal import FAST, _scene
from tiny_generators import other_person, tiny_stylegan2

from dynode_pack.dynode_core.artifacts import load_artifact, save_artifact
from dynode_pack.dynode_core.blending.stitch_tuning import StitchSettings, tune_stitching
from dynode_pack.dynode_core.editing.latent import first_latent
from dynode_pack.dynode_core.editing.mixing import morph_latents
from dynode_pack.dynode_core.editing.mixing import sample_of as sample_of_latents
from dynode_pack.dynode_core.generators.tuning import tunable_copy, with_tuning
from dynode_pack.dynode_core.inversion.path_loss import PathPictureLoss
from dynode_pack.dynode_core.inversion.pivotal import PivotalSettings, tune_to_pivots
from dynode_pack.dynode_core.metrics.frame_quality import Instruments
from dynode_pack.dynode_core.metrics.inversion_report import report_inversion
from dynode_pack.dynode_core.rendering import RenderedFaces, render
from dynode_pack.dynode_core.tuned_weights import Tuning, first_set, set_starts, stretches, with_new_sets
from dynode_pack.dynode_core.types import AlignedClip, InvertedClip, TrajectorySample

CUT, FRAMES = 2, 4
"""First frame of the second shot, and how many there are."""


def tiny() -> Any:
    """A generator of 64 px."""
    return tiny_stylegan2(64, "stylegan2-tiny-64x10")


def two_persons(generator: Any) -> Tuning:
    """Weights of one person until the cut, of another after it."""
    first, second = (other_person(generator, seed) for seed in (5, 6))
    return Tuning(first.weights, (second.weights,), ((CUT - 0.5) / 25,))


def two_shots(generator: Any) -> tuple[AlignedClip, InvertedClip]:
    """A clip of two persons, one after the other, and the codes at which their weights show them: the same codes, so
    that no single set of weights can show both."""
    aligned, codes = _scene(generator, frames=FRAMES)
    codes = replace(codes, w_plus=codes.w_plus[[k % CUT for k in range(FRAMES)]])
    with torch.no_grad():
        faces = render(generator, codes.w_plus, tuning=two_persons(generator), times=codes.times)
    pictures = ((faces + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).contiguous()
    track = replace(aligned.track, segments=np.array([[0, CUT], [CUT, FRAMES]]))
    return replace(aligned, clip=type(aligned.clip)(pictures, 25), track=track), codes


def sample_of(codes: InvertedClip, times: np.ndarray, tuning: Tuning | None) -> TrajectorySample:
    """The codes at any times, as a sample."""
    return TrajectorySample(
        codes.w_plus, codes.w_plus, times, codes.fps, codes.family, codes.generator_id, tuning=tuning
    )


def test_weights_belong_to_their_times() -> None:
    low, high = ({"x": torch.full((2,), value)} for value in (1.0, 2.0))
    tuning = Tuning(low, (high, {}), (1.0, 2.0))
    assert tuning.number_at(np.array([-5, 0.99, 1.0, 1.5, 2.0, 9.0])).tolist() == [0, 0, 1, 1, 2, 2]
    assert tuning.at(1.2).weights is high and tuning.at(1.2).later == ()
    found = [
        (part, weights.weights) for part, weights in stretches(tuning, np.array([3.0, 1.5, 1.1, 0.0, 1.0])) if weights
    ]
    assert [(part.start, part.stop) for part, _ in found] == [(0, 1), (1, 3), (3, 4), (4, 5)]
    assert [weights for _, weights in found] == [{}, high, low, high]
    assert list(stretches(tuning, np.empty(0))) == []
    assert first_set(tuning) is not None and first_set(None) is None
    starts = set_starts(tuning, np.array([0.5, 2.0]))
    assert starts.tolist() == [-np.inf, 0.5, 1.0, 2.0]
    joined = with_new_sets(tuning, starts, {1: Tuning(high), 3: Tuning(low)})
    assert joined is not None and joined.sets == (low, high, high, low) and joined.from_s == (0.5, 1.0, 2.0)
    assert with_new_sets(None, starts, {}) is None
    fresh = with_new_sets(None, np.array([-np.inf, 1.0]), {1: Tuning(high)})
    assert fresh is not None and fresh.sets == ({}, high)
    assert tuning.equals(Tuning(low, (high, {}), (1.0, 2.0))) and not tuning.equals(Tuning(low, (low, {}), (1.0, 2.0)))
    with pytest.raises(ValueError, match="1 sets and 0 times"):
        Tuning(low, (high,))
    with pytest.raises(ValueError, match="increase"):
        Tuning(low, (high, low), (2.0, 1.0))


def test_each_shot_gets_weights_that_show_it_better_than_one_set_for_both() -> None:
    generator = tiny()
    aligned, codes = two_shots(generator)
    settings = replace(FAST, rate=0.03)
    shared = tune_to_pivots(aligned, codes, generator, settings, perceptual=None)
    apart = tune_to_pivots(aligned, codes, generator, replace(settings, per_shot=True), perceptual=None)
    assert apart.after.mse < 0.6 * shared.after.mse < 0.6 * shared.before.mse
    assert apart.before.mse == pytest.approx(shared.before.mse, rel=1e-4)
    assert [shot.pivots for shot in apart.shots] == [(0, 1), (2, 3)] and apart.pivots == (0, 1, 2, 3)
    assert "Shot 2, from 0.06 s: 2 pivots" in apart.report
    tuning = apart.codes.tuning
    assert tuning is not None and tuning.from_s == (pytest.approx(0.06),) and len(tuning.sets) == 2
    quality = report_inversion(aligned, apart.codes, generator, Instruments(None, None, None))
    assert quality.mean("keyframe", "mse") == pytest.approx(apart.after.mse, rel=0.1)
    few = replace(settings, rounds=1, keyframes=1)
    on = tune_to_pivots(aligned, apart.codes, generator, few, perceptual=None)  # sets stay apart
    assert [shot.pivots for shot in on.shots] == [(1,), (3,)]  # and each gets a pivot
    assert on.before.mse == pytest.approx(apart.after.mse, rel=0.5) and on.before.mse < 0.6 * apart.before.mse


def test_pictures_are_drawn_with_the_weights_of_their_time(node_module: Any) -> None:
    generator = tiny()
    aligned, codes = two_shots(generator)
    tuning = two_persons(generator)
    times = aligned.clip.frame_times[[3, 2, 1, 0]]  # played backwards
    wanted = torch.cat(
        [
            with_tuning(generator, tuning.at(float(time))).synthesize(code[None]).detach()
            for time, code in zip(times, codes.w_plus, strict=True)
        ]
    )
    assert float((wanted - render(generator, codes.w_plus, tuning=first_set(tuning))).abs().max()) > 0.1
    with pytest.raises(ValueError, match="There are 2 sets of tuned weights"):
        render(generator, codes.w_plus, tuning=tuning)
    sample = sample_of(codes, times, tuning)
    faces = RenderedFaces(generator, sample, generator.resolution)
    loaded = node_module("devices").hold_generator(generator)
    managed = node_module("render").ManagedFaces(loaded, sample, generator.resolution, 2)
    for one in (faces, managed):
        torch.testing.assert_close(one.read(0, 4), wanted)
        torch.testing.assert_close(one.read(1, 3), wanted[1:3])
        torch.testing.assert_close(one.read_base(2, 4), wanted[2:4])


def test_codes_laid_out_as_frames_of_their_own_are_drawn_with_the_weights_of_the_first_code() -> None:
    generator = tiny()
    _, codes = two_shots(generator)
    tuning = two_persons(generator)
    latent = first_latent(replace(codes, tuning=tuning))
    assert latent.tuning is tuning  # a picture of a frame of another shot may be edited
    with torch.no_grad():
        wanted = with_tuning(generator, first_set(tuning)).synthesize(latent.w_plus_0[None])
    frames = 2 * round(25 * tuning.from_s[0]) + 4
    for sample in (
        morph_latents(latent, latent, frames, Fraction(25)),
        sample_of_latents([latent] * frames, Fraction(25)),
    ):
        faces = RenderedFaces(generator, sample, generator.resolution).read(0, frames)
        torch.testing.assert_close(faces, wanted.expand_as(faces))


def test_a_loss_of_pictures_uses_the_weights_of_their_time() -> None:
    generator = tiny()
    tuning = two_persons(generator)
    codes = generator.map(torch.randn(4, generator.z_dim, generator=torch.Generator().manual_seed(3)))
    loss = PathPictureLoss(generator, None, 64, 1.0, 0.0, tuning)
    both = loss(codes[:2], codes[2:], np.array([0.0, 1.0]))
    alone = [
        PathPictureLoss(generator, None, 64, 1.0, 0.0, tuning.at(time))(codes[i : i + 1], codes[i + 2 : i + 3], times)
        for i, time in enumerate((0.0, 1.0))
        for times in (np.array([time]),)
    ]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)
    assert float(alone[0]) != pytest.approx(float(alone[1]), rel=0.01)


@pytest.mark.parametrize("empty_first", [False, True])
def test_files_keep_the_weights_of_each_shot(tmp_path: Path, empty_first: bool) -> None:
    generator = tiny()
    _, codes = two_shots(generator)
    tuning = two_persons(generator)
    tuning = replace(tuning, weights={}) if empty_first else tuning
    for value in (replace(codes, tuning=tuning), sample_of(codes, codes.times, tuning)):
        save_artifact(value, tmp_path / "file.safetensors")
        found = load_artifact(tmp_path / "file.safetensors").tuning
        assert found is not None and found.equals(tuning)


def test_an_interrupted_run_goes_on_where_it_was_and_a_finished_one_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynode_pack.dynode_core.inversion.pivotal_run.KEEP_EVERY_S", 0.0)
    generator = tiny()
    aligned, codes = two_shots(generator)
    settings = replace(FAST, rounds=3, rate=0.01, per_shot=True)

    def tune(cache_dir: Path | None, stop_at: int = 0) -> tuple[Tuning, list[int]]:
        calls: list[int] = []

        def progress(done: int, *_: object) -> None:
            calls.append(done)
            if done == stop_at:
                raise KeyboardInterrupt

        how: dict[str, Any] = {"perceptual": None, "cache_dir": cache_dir, "progress": progress}
        found = tune_to_pivots(aligned, codes, generator, settings, **how).codes.tuning
        assert found is not None and calls == sorted(calls) and calls[-1] == 2 * a_shot
        return found, calls

    a_shot = CUT * (settings.rounds + 3)  # crops, rounds, pictures before and after
    whole, calls = tune(None)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, stop_at=a_shot + 2 * CUT + 2 * CUT + 1)  # in the third round of the second shot
    monkeypatch.undo()
    for rounds in (1, 0):  # that are left, of both shots
        again, seen = tune(tmp_path)
        assert again.equals(whole) and len(seen) == len(calls) - (2 * settings.rounds - rounds) * CUT
    settings = replace(settings, seed=1)
    assert not tune(tmp_path)[0].equals(whole)


def test_one_set_is_tuned_at_a_time() -> None:
    generator = tiny()
    with pytest.raises(ValueError, match="There are 2 sets of tuned weights"):
        tunable_copy(generator, two_persons(generator))
    assert not PivotalSettings().per_shot


def test_stitching_tunes_each_shot() -> None:
    generator = tiny()
    aligned, sample = stitching_scene(generator, edit=0.1)
    aligned = replace(aligned, track=replace(aligned.track, segments=np.array([[0, 2], [2, 4]])))
    settings = StitchSettings(frames=4, rounds=4, rate=0.05, target=0.0)
    apart = tune_stitching(sample, aligned, generator, replace(settings, per_shot=True))
    assert apart.sample.tuning is not None and apart.sample.tuning.from_s == (pytest.approx(0.06),)
    assert apart.border_after < apart.border_before and apart.outputs == (0, 1, 2, 3)
    assert apart.report.startswith("4 frames of 2 shots, 4 rounds")
    assert apart.border_before == pytest.approx(tune_stitching(sample, aligned, generator, settings).border_before)
    on = tune_stitching(apart.sample, aligned, generator, settings)  # sets stay apart
    assert on.sets == 2 and on.border_before == pytest.approx(apart.border_after, rel=1e-4)


def test_stitching_leaves_shots_that_it_is_not_tuned_on_as_they_are() -> None:
    generator = tiny()
    aligned, sample = stitching_scene(generator, edit=0.1)
    before = Tuning({}, (other_person(generator, 6).weights, other_person(generator, 7).weights), (0.02, 0.06))
    aligned = replace(aligned, track=replace(aligned.track, segments=np.array([[0, 1], [1, 2], [2, 4]])))
    there = np.array([True, False, True, True])
    aligned = replace(aligned, track=replace(aligned.track, present=there))
    settings = StitchSettings(frames=1, rounds=2, rate=0.03, target=0.0)
    found = tune_stitching(replace(sample, tuning=before), aligned, generator, settings).sample.tuning
    assert found is not None and found.from_s == before.from_s
    assert found.sets[1] is before.sets[1]  # the face is not in that shot
    assert all(mine is not theirs for mine, theirs in zip(found.sets[::2], before.sets[::2], strict=True))


def test_sets_stay_apart_where_the_alignment_knows_of_no_cut() -> None:
    generator = tiny()
    aligned, codes = two_shots(generator)
    tuned = replace(codes, tuning=two_persons(generator))
    uncut = replace(aligned, track=replace(aligned.track, segments=None))
    found = tune_to_pivots(uncut, tuned, generator, replace(FAST, rounds=1), perceptual=None)
    assert [shot.pivots for shot in found.shots] == [(0, 1), (2, 3)] and found.before.mse < 1e-3


def test_what_did_not_help_does_not_count_in_the_result() -> None:
    generator = tiny()
    aligned, codes = two_shots(generator)
    half = Tuning(two_persons(generator).sets[0], ({},), two_persons(generator).from_s)  # nothing left to gain in it
    settings = replace(FAST, rounds=4, rate=0.03)
    found = tune_to_pivots(aligned, replace(codes, tuning=half), generator, settings, perceptual=None)
    first, second = found.shots
    assert second.helped and not first.helped and "nothing is changed" in found.report
    assert found.codes.tuning is not None and found.codes.tuning.sets[0] is half.sets[0]
    assert found.after.mse == pytest.approx((first.before.mse + second.after.mse) / 2)
    assert found.after.elsewhere == pytest.approx(second.after.elsewhere / 2)


def test_weights_that_the_compared_pictures_do_not_reach_may_be_asked_for(tmp_path: Path) -> None:
    generator = tiny_stylegan2(512, "stylegan2-tiny-512x16")
    aligned, codes = _scene(generator, frames=2)
    deep = replace(FAST, rounds=2, rate=0.01, depth=1024)
    found = tune_to_pivots(aligned, codes, generator, deep, perceptual=None, cache_dir=tmp_path)
    assert len(found.shots) == 1 and found.shots[0].rounds == 2


def test_the_first_code_keeps_its_weights_where_the_clip_begins_without_the_face() -> None:
    generator = tiny()
    aligned, codes = two_shots(generator)
    later = codes.times >= codes.times[CUT]
    codes = replace(
        codes,
        w_plus=codes.w_plus[later],
        times=codes.times[later],
        frame_indices=codes.frame_indices[later],
        loss=codes.loss[later],
    )
    settings = replace(FAST, rounds=2, rate=0.03, per_shot=True)
    found = tune_to_pivots(aligned, codes, generator, settings, perceptual=None).codes.tuning
    assert found is not None and found.weights and not found.later
