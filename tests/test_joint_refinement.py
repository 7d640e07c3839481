"""All keyframes refined together, and the generator tuned to the person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx_writer import embedder
from test_generators_stylegan2 import random_network
from test_inversion import _clip_of
from tiny_generators import other_person, tiny_mobile

from dynode_pack.dynode_core.artifacts import load_artifact, save_artifact
from dynode_pack.dynode_core.editing import apply_direction, first_latent
from dynode_pack.dynode_core.generators.tuning import tunable_copy, with_tuning
from dynode_pack.dynode_core.inversion import IdentityNetwork, InversionSettings, LossWeights, invert_clip
from dynode_pack.dynode_core.inversion.anchor import choose_anchor
from dynode_pack.dynode_core.inversion.code_space import measure_code_space
from dynode_pack.dynode_core.inversion.expression_shift import STRENGTH_PER_BLENDSHAPE, expression_shift
from dynode_pack.dynode_core.inversion.joint import JointStage, refine_together
from dynode_pack.dynode_core.inversion.losses import ReconstructionLoss
from dynode_pack.dynode_core.inversion.low_rank import low_rank
from dynode_pack.dynode_core.inversion.settings import QUALITIES
from dynode_pack.dynode_core.ode import fit_trajectory, solve_at_times
from dynode_pack.dynode_core.rendering import RenderedFaces, render
from dynode_pack.dynode_core.types import EditDirection


def _refine(generator, codes, stage, tuning_of_targets, **options):
    targets = render(generator, codes, tuning=tuning_of_targets, size=stage.size)
    even = torch.ones(1, 1, stage.size, stage.size)

    def loss_of(k, size):
        assert size == stage.size
        return ReconstructionLoss(targets[k : k + 1], even, None, LossWeights())

    space = measure_code_space(generator)
    start = codes + 0.05 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(3))
    options = {"on_step": lambda k, image: None} | options
    result = refine_together(generator, start, stage, loss_of, space, **options)
    found = render(generator, result.w_plus, tuning=result.tuning, size=stage.size)
    before = render(generator, start, size=stage.size)
    error = float((found - targets).square().mean())
    return result, error, float((before - targets).square().mean())


def _codes(generator, count: int = 3) -> torch.Tensor:
    return generator.map(torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("make", [tiny_mobile, lambda: random_network(64)], ids=["mobile", "stylegan2"])
def test_tuning_reaches_a_person_that_codes_alone_do_not(make):
    generator = make()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    person, codes = other_person(generator), _codes(generator)
    codes_only, with_codes, start = _refine(generator, codes, JointStage(64, 40, 0.03), person)
    tuned, with_weights, _ = _refine(generator, codes, JointStage(64, 40, 0.03, weight_rate=0.03), person)
    assert codes_only.tuning is None and tuned.tuning is not None
    assert with_codes < start
    assert with_weights < 0.7 * with_codes
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_refinement_gives_the_same_result_for_the_same_seed():
    generator = tiny_mobile()
    stage = JointStage(64, 2, 0.03, weight_rate=0.01)
    first, second = (_refine(generator, _codes(generator), stage, None, seed=4)[0] for _ in range(2))
    assert torch.equal(first.w_plus, second.w_plus)
    assert all(torch.equal(first.tuning.weights[name], second.tuning.weights[name]) for name in first.tuning.weights)


def test_a_penalty_keeps_codes_near_the_mean_face():
    generator = tiny_mobile()
    space, stage = measure_code_space(generator), JointStage(64, 20, 0.1)

    def size(weight: float) -> float:
        def penalty(coordinates):
            return weight * coordinates.square().mean(dim=(1, 2))

        result = _refine(generator, _codes(generator), stage, None, penalty=penalty)[0]
        return float(space.encode(result.w_plus).square().mean())

    free, held = size(0.0), size(10.0)
    assert held < 0.7 * free


def test_refinement_that_was_cut_off_goes_on_to_the_same_result():
    generator = tiny_mobile()
    stage, states = JointStage(64, 3, 0.03, weight_rate=0.01), []
    whole = _refine(generator, _codes(generator), stage, None, on_round=states.append)[0]
    assert [int(state["steps"]) for state in states] == [3, 6, 9]
    seen = []
    resumed = _refine(
        generator, _codes(generator), stage, None, resume=states[0], on_step=lambda k, image: seen.append(k)
    )[0]
    assert len(seen) == 6
    assert torch.equal(resumed.w_plus, whole.w_plus) and resumed.losses == whole.losses
    assert all(torch.equal(resumed.tuning.weights[name], value) for name, value in whole.tuning.weights.items())


def test_state_of_another_stage_is_not_taken_over():
    generator = tiny_mobile()
    seen = []
    _refine(
        generator,
        _codes(generator),
        JointStage(64, 2, 0.03),
        None,
        resume={"steps": torch.tensor(3)},
        on_step=lambda k, image: seen.append(k),
    )
    assert len(seen) == 6


def test_keyframe_that_is_good_enough_is_left_alone():
    generator = tiny_mobile()
    pictures = []
    _refine(
        generator,
        _codes(generator),
        JointStage(64, 3, 0.03),
        None,
        loss_target=10.0,
        on_step=lambda k, image: pictures.append(image),
    )
    assert [picture is None for picture in pictures] == [False] * 3 + [True] * 6


def _blendshape_clip(**values):
    """Five frames in which blendshapes rise from 0 to 1."""
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 5)
    blendshapes = np.zeros((5, 52), np.float32)
    for index in values.pop("rising", ()):
        blendshapes[:, index] = np.linspace(0, 1, 5)
    return replace(aligned, track=replace(aligned.track, blendshapes=blendshapes))


def test_start_moves_along_the_direction_of_what_the_face_does():
    aligned = _blendshape_clip(rising=(25,))
    random = torch.Generator().manual_seed(0)
    names = ("mouth open", "eyes closed", "roll")
    directions = {name: EditDirection(name, torch.randn(16, generator=random), "any", (0.2, 0.5)) for name in names}
    shift = expression_shift(aligned, np.array([0, 2, 4]), directions, 10)
    assert shift.shape == (3, 10, 16)
    assert not shift[0].any() and not shift[:, :2].any() and not shift[:, 5:].any()
    torch.testing.assert_close(
        shift[2, 2:5], STRENGTH_PER_BLENDSHAPE * directions["mouth open"].direction.expand(3, 16)
    )
    torch.testing.assert_close(shift[1], shift[2] / 2)
    from_last = expression_shift(aligned, np.array([0, 2, 4]), directions, 10, anchor=2)
    torch.testing.assert_close(from_last, shift - shift[2])


def test_anchor_is_the_calmest_keyframe_that_was_seen():
    aligned = _blendshape_clip(rising=(25,))
    falling = 1.5 * aligned.track.blendshapes[::-1]
    falling[:, 13] = 1 - falling[:, 25]  # where the eyes look does not matter

    def anchor(**changes):
        return choose_anchor(replace(aligned, track=replace(aligned.track, **changes)), np.array([0, 2, 4]))

    assert anchor() == 0 and anchor(blendshapes=falling) == 2
    assert anchor(blendshapes=falling / 2) == 0, "not worth leaving the first one"
    turned = np.zeros((5, 3), np.float32)
    turned[4, 0] = 50.0
    assert anchor(blendshapes=falling, pose_deg=turned) == 1
    assert anchor(blendshapes=falling, detected=np.array([True, True, True, True, False])) == 1
    assert anchor(blendshapes=None, pose_deg=None) == 0


def test_start_stays_where_nothing_was_measured():
    aligned = _blendshape_clip(rising=(25,))
    assert not expression_shift(aligned, np.array([0, 4]), {}, 10).any()
    unmeasured = replace(aligned, track=replace(aligned.track, blendshapes=None))
    direction = {"mouth open": EditDirection("mouth open", torch.ones(16), "any")}
    assert not expression_shift(unmeasured, np.array([0, 4]), direction, 10).any()


@pytest.mark.parametrize("make", [tiny_mobile, lambda: random_network(64)], ids=["mobile", "stylegan2"])
def test_tuned_generator_shares_what_was_not_tuned(make):
    generator = make()
    person, codes = other_person(generator), _codes(generator)
    untouched = generator.synthesize(codes)
    tuned = with_tuning(generator, person)
    assert float((tuned.synthesize(codes) - untouched).abs().max()) > 1e-3
    assert torch.equal(generator.synthesize(codes), untouched)
    own = {
        name for name, value in tuned.named_parameters() if value.data_ptr() != generator.get_parameter(name).data_ptr()
    }
    assert own == set(person.weights)
    assert with_tuning(generator, None) is generator


def test_tunable_copy_leaves_the_generator_frozen():
    generator = tiny_mobile()
    copied, parameters = tunable_copy(generator)
    assert parameters and all(parameter.requires_grad for parameter in parameters.values())
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert copied.generator_id == generator.generator_id


def test_tuned_weights_of_another_generator_are_refused():
    with pytest.raises(ValueError, match="inverted with"):
        with_tuning(tiny_mobile(), other_person(random_network(64)))


def test_tuning_travels_from_the_codes_to_the_pictures(tmp_path):
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 5)
    settings = InversionSettings(quality="normal", keyframe_every=2, max_steps=4)
    inverted = invert_clip(aligned, generator, settings, perceptual=None)
    assert inverted.tuning is not None and inverted.report["tuned"]
    save_artifact(inverted, tmp_path / "codes.safetensors")
    inverted = load_artifact(tmp_path / "codes.safetensors")
    trajectory = fit_trajectory(inverted)
    save_artifact(trajectory, tmp_path / "trajectory.safetensors")
    trajectory = load_artifact(tmp_path / "trajectory.safetensors")
    push = EditDirection("push", torch.ones(generator.w_dim), generator.family)
    latent = apply_direction(first_latent(trajectory), push, 0.1)
    save_artifact(latent, tmp_path / "latent.safetensors")
    latent = load_artifact(tmp_path / "latent.safetensors")
    sample = solve_at_times(trajectory, trajectory.times, latent=latent)
    save_artifact(sample, tmp_path / "sample.safetensors")
    sample = load_artifact(tmp_path / "sample.safetensors")
    for value in (trajectory, latent, sample):
        assert value.tuning.weights.keys() == inverted.tuning.weights.keys()
    faces = RenderedFaces(generator, sample, generator.resolution)
    with torch.no_grad():
        plain = generator.synthesize(sample.w_plus[:1])
        tuned = with_tuning(generator, inverted.tuning).synthesize(sample.w_plus[:1])
    torch.testing.assert_close(faces.read(0, 1), tuned)
    assert float((faces.read(0, 1) - plain).abs().max()) > 1e-4


def test_tuning_can_be_declined():
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 3)
    settings = InversionSettings(quality="normal", keyframe_every=2, max_steps=2, tune=False)
    assert invert_clip(aligned, generator, settings, perceptual=None).tuning is None


def test_cancelled_refinement_goes_on_and_gives_the_same(tmp_path):
    generator = tiny_mobile()
    (tmp_path / "net.onnx").write_bytes(embedder())
    identity = IdentityNetwork(tmp_path / "net.onnx")
    aligned, _ = _clip_of(generator, 3)
    settings = InversionSettings(quality="normal", keyframe_every=1, max_steps=3)
    options = {"perceptual": None, "identity": identity}
    whole = invert_clip(aligned, generator, settings, **options)
    cache = tmp_path / "cache"
    steps = []

    def cancel(done, total, preview=None):
        steps.append(done)
        if done == total - 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        invert_clip(aligned, generator, settings, **options, cache_dir=cache, progress=cancel)
    later = []
    resumed = invert_clip(
        aligned,
        generator,
        settings,
        **options,
        cache_dir=cache,
        progress=lambda done, total, preview=None: later.append((done, total, preview is not None)),
    )
    assert torch.equal(resumed.w_plus, whole.w_plus)
    assert all(torch.equal(resumed.tuning.weights[name], value) for name, value in whole.tuning.weights.items())
    assert later[-1][0] == later[-1][1], "the bar should end full"
    assert sum(shown for *_, shown in later) <= 3 * len(aligned.clip.frame_times), "only the last stage runs again"


def test_few_keyframes_are_visited_more_often_while_weights_are_tuned():
    def last_visits(keyframes, can_tune=True, **asked):
        return InversionSettings(**asked).joint_stages(keyframes, can_tune=can_tune)[-1].visits

    least = QUALITIES["normal"].joint[-1].least_steps
    assert last_visits(least) == QUALITIES["normal"].joint[-1].visits < last_visits(5) == least // 5
    assert last_visits(5, tune=False) == last_visits(5, can_tune=False) == last_visits(least)
    assert last_visits(5, max_steps=2) == 2


def test_offsets_of_low_rank_span_few_dimensions_and_stay_near() -> None:
    random = torch.Generator().manual_seed(3)
    basis, amounts = torch.randn(2, 4, 8, generator=random), torch.randn(6, 2, generator=random)
    codes = 0.3 + torch.einsum("kr,rld->kld", amounts, basis)
    torch.testing.assert_close(low_rank(codes, 2), codes, atol=1e-5, rtol=1e-5)
    noisy = codes + 0.01 * torch.randn(codes.shape, generator=random)
    found = low_rank(noisy, 2)
    offsets = (found - found.mean(dim=0)).flatten(1)
    assert int(torch.linalg.matrix_rank(offsets, atol=1e-4)) == 2
    assert float((found - codes).norm()) < 0.8 * float((noisy - codes).norm())


def test_each_shot_has_a_mean_and_offsets_of_its_own() -> None:
    random = torch.Generator().manual_seed(4)
    bases, amounts = torch.randn(2, 1, 4, 8, generator=random), torch.randn(5, 1, 1, generator=random)
    shots = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2])
    first, second = (base * amounts + 3 * place for place, base in enumerate(bases))
    codes = torch.cat([first, second, torch.randn(1, 4, 8, generator=random)])
    torch.testing.assert_close(low_rank(codes, 1, shots), codes, atol=1e-5, rtol=1e-5)
    assert float((low_rank(codes, 1) - codes).norm()) > 0.1 * float(codes.norm())


def test_inversion_with_a_rank_leaves_the_codes_in_few_dimensions() -> None:
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 6)
    settings = InversionSettings("draft", keyframe_every=1, max_steps=3, offset_rank=1)
    found = invert_clip(aligned, generator, settings, perceptual=None)
    coordinates = measure_code_space(generator).encode(found.w_plus).flatten(1)
    values = torch.linalg.svdvals(coordinates - coordinates.mean(dim=0))
    assert values[1] < 1e-3 * values[0]
