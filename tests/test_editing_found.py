"""Directions that are found, kept directions, calibrated strength, strengths over time and edits that move over."""

from __future__ import annotations

import gc
import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from tiny_generators import tiny_mobile, tiny_stylegan2

from dynode_pack.dynode_core.code_stream import CodeStream
from dynode_pack.dynode_core.editing import apply_direction, load_direction, sampled_latents, shipped_directions
from dynode_pack.dynode_core.editing.code_range import distance_of_edit
from dynode_pack.dynode_core.editing.conditional import keeping
from dynode_pack.dynode_core.editing.direction_files import save_directions
from dynode_pack.dynode_core.editing.discovery import (
    direction_from_scores,
    principal_directions,
    sefa,
    style_weights,
)
from dynode_pack.dynode_core.editing.latent import applied_rows
from dynode_pack.dynode_core.editing.leakage import compensation, measured_effects
from dynode_pack.dynode_core.editing.over_time import edit_over_time, listed_factors, parse_curve
from dynode_pack.dynode_core.editing.strip import draw_directions, labelled_grid, parse_strengths
from dynode_pack.dynode_core.editing.transfer import transfer_edit
from dynode_pack.dynode_core.types import EditDirection, EditedLatent, TrajectorySample

MOBILE = "mobile_stylegan-ffhq-1024"
BIRDS = "stylegan2-bird-64x10"


def random_latent(rows: int = 23, width: int = 512, family: str = MOBILE, seed: int = 0) -> EditedLatent:
    code = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return EditedLatent(code, code, (), family)


@pytest.mark.parametrize("make", [tiny_mobile, lambda: tiny_stylegan2(64, BIRDS)])
def test_sefa_directions_solve_the_eigenvalue_problem_of_the_styles(make):
    generator = make()
    found = sefa(generator, 5)
    channels = torch.cat([weight for weight in style_weights(generator) if weight is not None]).double()
    channels = channels / channels.norm(dim=1, keepdim=True)
    gram, unit = channels.T @ channels, [d.direction.double() / d.direction.norm() for d in found]
    answers = [float(axis @ gram @ axis) for axis in unit]
    for axis, answer in zip(unit, answers, strict=True):
        torch.testing.assert_close(gram @ axis, answer * axis, rtol=1e-4, atol=1e-4)
    assert answers == sorted(answers, reverse=True)
    torch.testing.assert_close(answers[0], float(torch.linalg.eigvalsh(gram)[-1]), rtol=1e-5, atol=1e-5)


def test_every_style_of_stylegan2_belongs_to_its_row():
    generator = tiny_stylegan2(64, BIRDS)
    weights = style_weights(generator)
    assert [weight is None for weight in weights] == [False] * 9 + [True]
    assert torch.equal(weights[0], generator.synthesis.b4.conv1.affine.weight)
    assert torch.equal(weights[3], generator.synthesis.b16.conv0.affine.weight)


def test_directions_of_some_layers_leave_the_others_alone():
    generator = tiny_stylegan2(64, BIRDS)
    for direction in (*sefa(generator, 2, "2-3"), *principal_directions(generator, 2, "2-3")):
        rows = applied_rows(direction, torch.zeros(10, 16), BIRDS)
        assert rows.any(dim=1).nonzero().flatten().tolist() == [2, 3]
    with pytest.raises(ValueError, match="no styles of their own"):
        sefa(generator, 2, "9")


def test_strength_one_of_a_principal_direction_is_one_deviation_of_the_codes():
    generator = tiny_mobile()
    w = generator.map(torch.randn(4000, generator.z_dim, generator=torch.Generator().manual_seed(8)))[:, 0]
    found = principal_directions(generator, 3)
    for direction in found:
        unit = direction.direction / direction.direction.norm()
        assert float(direction.direction.norm()) == pytest.approx(float((w @ unit).std()), rel=0.1)
    lengths = [float(direction.direction.norm()) for direction in found]
    assert lengths == sorted(lengths, reverse=True)


def test_scores_lead_to_the_direction_behind_them():
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(120, generator.z_dim, generator=torch.Generator().manual_seed(4)))
    truth = torch.randn(generator.w_dim, generator=torch.Generator().manual_seed(5))
    scores = (w_plus[:, 0] @ truth).numpy() * 3 + 7
    found = direction_from_scores(sampled_latents(w_plus, generator), scores, "age")
    assert found.correlation > 0.9 and float(found.direction.direction @ truth) > 0
    edited = apply_direction(sampled_latents(w_plus, generator)[0], found.direction, 1.0)
    gain = float((edited.w_plus_0[0] - w_plus[0, 0]) @ truth) * 3
    assert gain == pytest.approx(float(np.std(scores)), rel=0.4)


def test_scores_of_chance_are_told_from_real_ones():
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(60, generator.z_dim, generator=torch.Generator().manual_seed(4)))
    noise = np.random.default_rng(0).normal(size=60)
    assert direction_from_scores(sampled_latents(w_plus, generator), noise, "x").correlation < 0.3


@pytest.mark.parametrize(
    ("count", "scores", "match"), [(4, [1.0] * 4, "at least 8"), (9, [1.0] * 8, "8 scores"), (9, [2.0] * 9, "the same")]
)
def test_scores_that_teach_nothing_are_refused(count, scores, match):
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(4)))
    with pytest.raises(ValueError, match=match):
        direction_from_scores(sampled_latents(w_plus, generator), scores, "x")


def test_found_directions_come_back_from_their_file(tmp_path):
    generator = tiny_stylegan2(64, BIRDS)
    found = [*sefa(generator, 2, "0-3"), shipped_directions()["smile"]]
    save_directions(found, tmp_path / "found.safetensors")
    again = load_direction("found.safetensors[sefa 1]", [tmp_path], family=BIRDS)
    assert torch.equal(again.direction, found[1].direction) and again.family == BIRDS
    smile = load_direction("found.safetensors[smile]", [tmp_path], family=MOBILE)
    assert smile.depth == found[2].depth and smile.family == "ffhq-w"
    save_directions([found[2]], tmp_path / "one.safetensors")
    assert load_direction("one.safetensors", [tmp_path], family=MOBILE).depth == found[2].depth


def test_what_the_shipped_directions_leak_is_taken_back_by_what_was_measured():
    names = ("yaw", "pitch")
    kept = [shipped_directions()[name] for name in names]
    latent = random_latent()
    edited = apply_direction(latent, shipped_directions()["smile"], 2, keep=kept)
    shares, table = compensation("smile", names), measured_effects()
    for of in names:
        left = table["smile"][of] + sum(share * table[by][of] for share, by in zip(shares, names, strict=True))
        assert abs(left) < 1e-9 * abs(table[of][of])
    own = table["smile"]["smile"] + sum(share * table[by]["smile"] for share, by in zip(shares, names, strict=True))
    assert own == pytest.approx(table["smile"]["smile"], rel=0.05)
    plain = apply_direction(latent, shipped_directions()["smile"], 2)
    for direction, share in zip(kept, shares, strict=True):
        plain = apply_direction(plain, direction, 2 * share)
    torch.testing.assert_close(edited.w_plus_0, plain.w_plus_0)
    assert edited.edits == ("smile=2 keeping yaw and pitch",)


def test_keeping_a_shipped_direction_itself_is_refused():
    smile = shipped_directions()["smile"]
    with pytest.raises(ValueError, match="Nothing is left of 'smile'"):
        apply_direction(random_latent(), smile, 1, keep=[smile])
    with pytest.raises(ValueError, match="'roll' can't be kept"):
        apply_direction(random_latent(), smile, 1, keep=[shipped_directions()["roll"]])


def test_other_kept_directions_are_at_right_angles_to_the_edit():
    smile, latent = shipped_directions()["smile"], random_latent()
    given = [EditDirection(name, torch.randn(512), "ffhq-w") for name in ("age", "glasses")]
    change = apply_direction(latent, smile, 2, keep=given).w_plus_0 - latent.w_plus_0
    acts = change.any(dim=1)
    for other in given:
        rows = applied_rows(other, latent.w_plus_0, MOBILE)[acts]
        assert abs(float((change[acts] * rows).sum())) < 1e-3 * float(rows.norm())
    assert acts.nonzero().flatten().tolist() == list(range(4, 10))


def test_keeping_the_direction_itself_is_refused_and_keeping_others_of_other_rows_changes_nothing():
    change = torch.zeros(4, 8)
    change[0] = torch.arange(8.0)
    with pytest.raises(ValueError, match="Nothing is left"):
        keeping(change, [3 * change])
    other = torch.zeros(4, 8)
    other[2] = 1
    assert torch.equal(keeping(change, [other]), change)


def test_an_edit_out_of_range_is_told_from_one_within():
    generator = tiny_mobile()
    code = generator.map(torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(4)))[0]
    axis = principal_directions(generator, 1)[0].direction
    near, far = (distance_of_edit(code, code + factor * axis, generator) for factor in (0.3, 40.0))
    assert not near.is_far and far.is_far and far.after > far.before
    assert "standard deviations" in far.text


def sample_of(edited: torch.Tensor, base: torch.Tensor) -> TrajectorySample:
    return TrajectorySample(edited, base, np.arange(len(base)) / 10, Fraction(10), MOBILE, "", edits=("smile=2",))


@pytest.mark.parametrize("stream", [False, True])
def test_factors_multiply_what_the_edit_adds(stream):
    base = torch.randn(6, 3, 4)
    edited: torch.Tensor | CodeStream = base + torch.randn(3, 4)
    codes = edited
    if stream:
        edited = CodeStream(6, (3, 4), lambda index: codes[index])
    result = edit_over_time(sample_of(edited, base), np.linspace(0, 1, 6), "over time")
    assert torch.equal(result.w_plus[0], base[0])
    torch.testing.assert_close(result.w_plus[5], codes[5])
    torch.testing.assert_close(
        result.w_plus[2:4], base[2:4] + torch.tensor([0.4, 0.6])[:, None, None] * (codes - base)[2:4]
    )
    assert result.edits == ("smile=2 (over time)",)


def test_curves_pass_their_entries():
    times = np.array([0, 1.25, 2.5, 4, 5])
    factors = parse_curve("0:0, 2.5s:1, end:0.3").at(times)
    assert factors[[0, 2, 4]] == pytest.approx([0, 1, 0.3]) and factors[1] == pytest.approx(0.5)
    assert parse_curve("start:0, 50%:2, end:0", "straight").at(times) == pytest.approx([0, 1, 2, 0.8, 0])
    assert parse_curve("0:0; 2:1", "steps").at(times) == pytest.approx([0, 0, 1, 1, 1])
    assert parse_curve("0.5").at(times) == pytest.approx([0.5] * 5)


@pytest.mark.parametrize("text", ["", "a", "0:0, 1", "1:", "0:99"])
def test_bad_curves_are_refused(text):
    with pytest.raises(ValueError, match="curve"):
        parse_curve(text)


def test_two_strengths_at_one_time_are_refused():
    with pytest.raises(ValueError, match="two strengths at 5 s"):
        parse_curve("0:0, 5:1, end:0").at(np.array([0.0, 5.0]))


def test_listed_strengths_fit_the_frames():
    assert listed_factors([0, 1, 2], 3).tolist() == [0, 1, 2]
    assert listed_factors([0, 1], 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(ValueError, match="NaN"):
        listed_factors([0, float("nan")], 2)


def test_an_edit_moves_over_to_another_clip_without_the_person():
    smile = shipped_directions()["smile"]
    one, other = random_latent(seed=1), random_latent(seed=2)
    moved = transfer_edit(apply_direction(one, smile, 2), other, 0.5)
    torch.testing.assert_close(moved.w_plus_0, apply_direction(other, smile, 1).w_plus_0, rtol=0, atol=1e-5)
    assert torch.equal(moved.base_w_plus_0, other.w_plus_0) and moved.edits == ("transferred=0.5 (smile=2)",)
    with pytest.raises(ValueError, match="changes nothing"):
        transfer_edit(one, other)


def test_transfer_to_the_other_architecture_moves_rows():
    smile = shipped_directions()["smile"]
    edited = apply_direction(random_latent(seed=1), smile, 2)
    target = random_latent(18, family="stylegan2-ffhq-1024x18", seed=2)
    change = transfer_edit(edited, target).w_plus_0 - target.w_plus_0
    torch.testing.assert_close(change[3], (edited.w_plus_0 - edited.base_w_plus_0)[4], rtol=0, atol=1e-5)


def test_strip_shows_the_unmoved_face_in_the_middle_and_more_change_outwards():
    generator = tiny_mobile()
    latent = sampled_latents(generator.map(torch.zeros(1, generator.z_dim) + 0.3), generator)[0]
    seen: list[tuple[int, int]] = []
    drawn = draw_directions(
        latent,
        generator,
        principal_directions(generator, 2),
        parse_strengths("-2,0,2"),
        tile_px=64,
        progress=lambda done, total, preview: seen.append((done, total)),
    )
    assert drawn.dtype == np.uint8 and seen[-1] == (6, 6)
    left = drawn.shape[1] - 3 * 68
    top = drawn.shape[0] - 2 * 68
    tiles = [[drawn[top + r * 68 :, left + c * 68 :][:64, :64].astype(float) for c in range(3)] for r in range(2)]
    assert np.array_equal(tiles[0][1], tiles[1][1])
    for row in tiles:
        assert np.abs(row[0] - row[1]).mean() > 0.5 and np.abs(row[2] - row[1]).mean() > 0.5


def test_labels_are_drawn_beside_and_above_the_faces():
    tile = np.zeros((96, 96, 3), np.uint8)
    page = labelled_grid([[tile, tile]], ["brows up"], ["-1", "+1"])
    left = page.shape[1] - 2 * 100
    assert page[:, : left - 4].max() > 200 and page[: page.shape[0] - 100, left:].max() > 200
    assert page[-90:-10, left + 5 : left + 90].max() == 0


@pytest.mark.parametrize("text", ["", "a, b", "1, nan"])
def test_bad_strengths_are_refused(text):
    with pytest.raises(ValueError, match="strengths should be numbers"):
        parse_strengths(text)


@pytest.mark.weights
def test_visible_unit_makes_directions_of_any_length_change_as_much():
    from dynode_pack.dynode_core.editing.calibration import VISIBLE_CHANGE, ChangeMeter, _faces, visible_unit
    from dynode_pack.dynode_core.inversion import load_perceptual
    from dynode_pack.dynode_core.model_files import find_perceptual

    generator = tiny_mobile()
    judge = load_perceptual(find_perceptual(()), torch.device("cpu"))
    first, second = principal_directions(generator, 2)
    meter = ChangeMeter(generator, judge, _faces(generator), 64)
    for direction in (first, second):
        unit = visible_unit(direction, generator, judge)
        rows = applied_rows(direction, torch.zeros(generator.num_ws, generator.w_dim), generator.family)
        assert meter.change(rows.expand(2, -1, -1), unit) == pytest.approx(VISIBLE_CHANGE, rel=0.15)
    longer = EditDirection("x", 10 * first.direction, first.family)
    assert visible_unit(longer, generator, judge) == pytest.approx(visible_unit(first, generator, judge) / 10, rel=0.15)
    with pytest.raises(ValueError, match="zero on the chosen layers"):
        visible_unit(EditDirection("x", 0 * first.direction, first.family), generator, judge)


@pytest.mark.weights
def test_a_measured_generator_is_let_go_and_never_taken_for_another():
    from dynode_pack.dynode_core.editing.calibration import visible_unit
    from dynode_pack.dynode_core.inversion import load_perceptual
    from dynode_pack.dynode_core.model_files import find_perceptual

    judge = load_perceptual(find_perceptual(()), torch.device("cpu"))
    generator, again = tiny_mobile(), tiny_mobile()
    generator.generator_id = again.generator_id = "loaded twice"
    first, second = principal_directions(generator, 2)
    visible_unit(first, generator, judge)
    with torch.no_grad():
        for weight in generator.parameters():
            weight.fill_(torch.nan)  # as useless as weights that stayed on another device
    assert 0 < visible_unit(second, again, judge) < 1000
    kept = weakref.ref(again)
    del again
    gc.collect()
    assert kept() is None, "the memory of the generator was not given back"
