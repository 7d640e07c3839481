"""Stitching tuning: STIT's masks and losses, and weights that make the face meet the source around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stitching_scene import stitching_scene
from test_generators_stylegan2 import random_network
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.blending import BlendSettings, StitchSettings, blend_clip, tune_stitching
from dynode_pack.dynode_core.blending.stitch_scene import choose_outputs, make_scene
from dynode_pack.dynode_core.blending.stitching import masked_l2, stitch_masks
from dynode_pack.dynode_core.rendering import RenderedFaces, render
from dynode_pack.dynode_core.spread import spread_over_groups

GENERATORS = pytest.mark.parametrize("make", [tiny_mobile, lambda: random_network(64)], ids=["mobile", "stylegan2"])


@pytest.fixture(scope="module")
def stit(golden: Callable[[str], Path]) -> dict[str, torch.Tensor]:
    return load_file(golden("stit_alignment_paste_stitch.safetensors"))


@pytest.mark.parametrize(("edge", "inner", "outer"), [(0, 0, 5), (6, 0, 6), (6, 2, 6)])
def test_masks_are_those_of_stit(stit: dict[str, torch.Tensor], edge: int, inner: int, outer: int) -> None:
    masks = stitch_masks(stit["stitch.in.mask"], edge_px=edge, inner_px=inner, outer_px=outer)
    name = f"stitch.b{edge}_in{inner}_out{outer}_whole0"
    for kind in ("content", "border"):
        assert torch.equal(getattr(masks, kind), stit[f"{name}.{kind}"]), kind


def test_losses_are_those_of_stit(stit: dict[str, torch.Tensor]) -> None:
    pictures = stit["stitch.x"], stit["stitch.y"], stit["stitch.in.mask"]
    assert float(masked_l2(*pictures)) == pytest.approx(float(stit["stitch.masked_l2"]), rel=1e-5)
    assert float(masked_l2(*pictures[:2], torch.zeros(1, 1, 64, 64))) == 0


SETTINGS = StitchSettings(frames=3, rounds=25, rate=0.02, target=0.0)


@GENERATORS
def test_tuned_weights_meet_the_source_around_the_face(make) -> None:
    generator = make()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    aligned, sample = stitching_scene(generator, edit=0.1)
    result = tune_stitching(sample, aligned, generator, SETTINGS)
    assert result.border_after < 0.6 * result.border_before
    assert torch.equal(result.sample.w_plus, sample.w_plus) and result.sample.times is sample.times
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    index, size = result.outputs[-1], min(256, generator.resolution)
    scene = make_scene(sample, aligned, index, size, BlendSettings(), torch.device("cpu"))
    errors = []
    for tuning in (sample.tuning, result.sample.tuning):
        pictures = render(generator, scene.codes, tuning=tuning, size=size)
        errors.append(
            float(masked_l2(pictures, scene.source.expand(2, -1, -1, -1), scene.masks.border.expand(2, 1, -1, -1)))
        )
    assert errors[1] < 0.7 * errors[0]


@GENERATORS
def test_a_high_weight_keeps_the_face_as_it_was(make) -> None:
    generator = make()
    aligned, sample = stitching_scene(generator)
    light, heavy = (
        tune_stitching(sample, aligned, generator, replace(SETTINGS, content_weight=weight)) for weight in (0.0, 10.0)
    )
    assert heavy.content_change < 0.5 * light.content_change


def test_no_edit_still_changes_nothing_and_seams_are_smaller() -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator)
    result = tune_stitching(sample, aligned, generator, SETTINGS)
    faces = RenderedFaces(generator, result.sample, 64)
    for mode in ("residual", "adaptive"):
        made = torch.cat([frames for _, frames in blend_clip(aligned, faces, BlendSettings(mode=mode))])
        assert torch.equal(made, aligned.clip.read(range(4)))
    plain = BlendSettings(mode="replace", colour_match=False)
    errors = []
    for chosen in (sample, result.sample):
        made = torch.cat([f for _, f in blend_clip(aligned, RenderedFaces(generator, chosen, 64), plain)])
        ring = make_scene(sample, aligned, 0, 64, plain, torch.device("cpu")).masks.border[0, 0] > 0
        errors.append(float((made - aligned.clip.read(range(4))).abs()[:, ring].mean()))
    assert errors[1] < 0.8 * errors[0]


def test_tuning_goes_on_from_the_weights_that_came_with_the_codes_and_repeats_exactly() -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator)
    short = replace(SETTINGS, rounds=3)
    first, same = (tune_stitching(sample, aligned, generator, short) for _ in range(2))
    assert first.sample.tuning is not None and same.sample.tuning is not None
    for name, weight in first.sample.tuning.weights.items():
        assert torch.equal(weight, same.sample.tuning.weights[name])
    further = tune_stitching(first.sample, aligned, generator, short)
    assert further.border_before == pytest.approx(first.border_after, rel=1e-4)
    assert further.border_after < first.border_after


def test_tuning_stops_at_the_target_and_where_nothing_helps() -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator)
    assert tune_stitching(sample, aligned, generator, replace(SETTINGS, target=100.0)).rounds == 1
    still = tune_stitching(sample, aligned, generator, replace(SETTINGS, rate=0.0))
    assert still.rounds == 2
    assert still.sample is sample and "nothing is changed" in still.report
    assert still.border_after == pytest.approx(still.border_before, rel=1e-5)


def test_progress_counts_every_step_and_may_cancel() -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator)
    seen: list[tuple[int, int]] = []
    tune_stitching(
        sample,
        aligned,
        generator,
        replace(SETTINGS, rounds=2),
        progress=lambda done, total, preview=None: seen.append((done, total)),
    )
    assert seen == [(done, 12) for done in [*range(1, 13), 12]]

    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int, preview: np.ndarray | None = None) -> None:
        if done == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        tune_stitching(sample, aligned, generator, SETTINGS, progress=cancel)


def test_frames_are_those_that_show_the_face_at_the_times_of_source_frames() -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator)
    slow = replace(
        sample,
        w_plus=sample.w_plus.repeat_interleave(4, 0),
        base_w_plus=sample.base_w_plus.repeat_interleave(4, 0),
        times=np.arange(16) / 100,
    )
    assert choose_outputs(slow, aligned, 12) == [0, 4, 8, 12]
    assert choose_outputs(slow, aligned, 2) == [0, 12]
    away = replace(aligned, track=replace(aligned.track, present=np.array([True, False, True, True])))
    assert choose_outputs(slow, away, 12) == [0, 8, 12]
    gone = replace(aligned, track=replace(aligned.track, present=np.zeros(4, bool)))
    with pytest.raises(ValueError, match="none of the times"):
        tune_stitching(slow, gone, generator)


def test_border_leaves_out_what_lies_outside_the_frame() -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator)
    moved = replace(aligned, quads=aligned.quads - np.array([20.0, 0.0]))
    settings, device = BlendSettings(region="whole crop"), torch.device("cpu")
    here, there = (make_scene(sample, clip, 0, 64, settings, device).masks for clip in (aligned, moved))
    assert here.border[..., :20].sum() > 0 and there.border[..., :20].sum() == 0
    assert torch.equal(here.border[..., 20:], there.border[..., 20:])


def test_wrong_codes_and_settings_are_refused() -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator)
    with pytest.raises(ValueError, match="generator family 'other'"):
        tune_stitching(replace(sample, family="other"), aligned, generator)
    with pytest.raises(ValueError, match="rounds should lie between"):
        StitchSettings(rounds=0)
    with pytest.raises(ValueError, match="0 or more"):
        stitch_masks(torch.zeros(1, 1, 8, 8), inner_px=-1)


@pytest.mark.parametrize(
    ("groups", "most", "expected"),
    [
        ([0] * 10, 4, [0, 3, 6, 9]),
        ([0] * 90 + [1, 1] + [2] * 8, 6, [0, 30, 59, 89, 91, 96]),  # the short shots are not passed over
        ([0, 1, 1, 1, 2, 3, 3], 2, [0, 6]),
        ([0, 0, 1], 9, [0, 1, 2]),
    ],
)
def test_every_shot_gets_a_frame(groups: list[int], most: int, expected: list[int]) -> None:
    assert spread_over_groups(np.array(groups), most).tolist() == expected
