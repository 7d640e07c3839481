"""Keyframes, losses, optimisation, cache and the whole inversion of a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.inversion import InversionSettings, LossWeights, invert_clip
from dynode_pack.dynode_core.inversion.cache import KeyframeCache
from dynode_pack.dynode_core.inversion.code_space import measure_code_space
from dynode_pack.dynode_core.inversion.keyframes import choose_keyframes, motion
from dynode_pack.dynode_core.inversion.losses import ReconstructionLoss, code_penalty
from dynode_pack.dynode_core.inversion.optimise import OptimisedCode, Problem, Stage, optimise_code
from dynode_pack.dynode_core.inversion.thumbnail_encoder import fit_thumbnail_encoder
from dynode_pack.dynode_core.tensor_cache import TensorCache, content_key
from dynode_pack.dynode_core.types import AlignedClip, FaceTrack
from dynode_pack.dynode_core.video import TensorClip


def _aligned(pictures: torch.Tensor, landmarks: np.ndarray | None = None) -> AlignedClip:
    """Crops that fill the frame."""
    num_frames, height, width, _ = pictures.shape
    quad = np.array([(0, 0), (0, height), (width, height), (width, 0)], float)
    if landmarks is None:
        landmarks = np.tile(np.random.default_rng(0).uniform(0, width, (1, 478, 2)), (num_frames, 1, 1))
    track = FaceTrack(
        landmarks=landmarks,
        boxes=np.tile([0.0, 0.0, width, height], (num_frames, 1)),
        scores=np.ones(num_frames, np.float32),
        detected=np.ones(num_frames, bool),
    )
    return AlignedClip(TensorClip(pictures, 25), np.tile(quad, (num_frames, 1, 1)), track, crop_size=64)


def _clip_of(generator, num_frames: int) -> tuple[AlignedClip, torch.Tensor]:
    """A clip of faces that the generator itself makes along a straight path of codes."""
    random = torch.Generator().manual_seed(1)
    ends = generator.map(torch.randn(2, generator.z_dim, generator=random), truncation_psi=1.2)
    mix = torch.linspace(0, 0.6, num_frames)[:, None, None]
    codes = ends[:1] + mix * (ends[1:] - ends[:1])
    with torch.no_grad():
        images = generator.synthesize(codes)
    return _aligned(((images + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).contiguous()), codes


def test_keyframes_hold_both_ends_and_every_kth_frame():
    aligned = _aligned(torch.zeros(10, 8, 8, 3))
    assert choose_keyframes(aligned, every=4).tolist() == [0, 4, 8, 9]
    assert choose_keyframes(aligned, every=1, max_keyframes=4).tolist() == [0, 3, 6, 9]


def test_keyframes_are_dense_where_the_face_moves():
    landmarks = np.tile(np.random.default_rng(0).uniform(20, 80, (1, 478, 2)), (60, 1, 1))
    landmarks[30:45, :, 0] += np.arange(15)[:, None] * 2.0
    landmarks[45:, :, 0] += 28.0
    aligned = _aligned(torch.zeros(60, 100, 100, 3), landmarks)
    chosen = choose_keyframes(aligned)
    moving = np.diff(chosen[(chosen >= 30) & (chosen <= 45)]).max()
    still = np.diff(chosen[chosen <= 29]).min()
    assert moving < still


def test_motion_does_not_depend_on_the_size_of_the_face():
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(20, 80, (5, 478, 2))
    small = _aligned(torch.zeros(5, 100, 100, 3), landmarks)
    large = _aligned(torch.zeros(5, 200, 200, 3), 2 * landmarks)
    np.testing.assert_allclose(motion(small), motion(large))


def test_one_frame_is_refused():
    with pytest.raises(ValueError, match="at least 2 frames"):
        choose_keyframes(_aligned(torch.zeros(1, 8, 8, 3)))


def _with_shots(num_frames: int, away: range, cut: int) -> AlignedClip:
    aligned = _aligned(torch.zeros(num_frames, 8, 8, 3))
    present = np.ones(num_frames, bool)
    present[away] = False
    segments = np.array([(0, cut), (cut, num_frames)])
    return replace(aligned, track=replace(aligned.track, present=present, segments=segments))


@pytest.mark.parametrize("options", [{}, {"every": 7}, {"every": 1, "max_keyframes": 9}])
def test_keyframes_hold_the_ends_of_every_shot_and_no_frame_without_the_face(options):
    aligned = _with_shots(60, range(10, 20), 35)
    chosen = choose_keyframes(aligned, **options)
    assert {0, 9, 20, 34, 35, 59} <= set(chosen.tolist())
    assert not set(range(10, 20)) & set(chosen.tolist())
    assert len(chosen) <= options.get("max_keyframes", 60)
    assert (np.diff(chosen) > 0).all()


def test_a_bound_below_the_number_of_shots_still_holds():
    assert choose_keyframes(_with_shots(60, range(10, 20), 35), max_keyframes=2).tolist() == [0, 59]


def test_a_face_in_one_frame_is_refused():
    with pytest.raises(ValueError, match="in view in 1 of 30"):
        choose_keyframes(_with_shots(30, range(1, 30), 15))


def test_a_jump_at_a_cut_is_no_motion_that_costs_keyframes():
    still = np.tile(np.random.default_rng(0).uniform(20, 80, (1, 478, 2)), (20, 1, 1))
    aligned = _aligned(torch.zeros(20, 100, 100, 3), np.concatenate([still[:10], still[10:] + 15]))
    aligned = replace(aligned, track=replace(aligned.track, segments=np.array([(0, 10), (10, 20)])))
    assert choose_keyframes(aligned).tolist() == [0, 9, 10, 19]


def test_loss_is_zero_only_for_the_target():
    target = torch.rand(1, 3, 64, 64) * 2 - 1
    loss = ReconstructionLoss(target, torch.ones(1, 1, 64, 64), None, LossWeights())
    assert float(loss(target)) == 0.0
    assert float(loss(target + 0.1)) > 0.0


def test_small_faces_do_not_ask_for_blur():
    sharp = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    few = F.interpolate(sharp, size=20, mode="bilinear", antialias=True)
    enlarged = F.interpolate(few, size=64, mode="bicubic")  # what a crop of a face of 20 px looks like
    even = torch.ones(1, 1, 64, 64)
    every_pixel = ReconstructionLoss(enlarged, even, None, LossWeights())
    source_pixels = ReconstructionLoss(enlarged, even, None, LossWeights(), detail_px=20)
    assert float(source_pixels(sharp)) < 0.3 * float(every_pixel(sharp))
    assert float(source_pixels(enlarged)) == 0.0 < float(source_pixels(enlarged + 0.1))
    large = ReconstructionLoss(enlarged, even, None, LossWeights(), detail_px=64)
    assert torch.equal(large(sharp), every_pixel(sharp))


def test_penalty_is_zero_at_the_mean_face_and_at_the_anchor():
    coordinates = torch.randn(1, 14, 16)
    assert float(code_penalty(torch.zeros(1, 14, 16), LossWeights())) == 0.0
    assert float(code_penalty(coordinates, LossWeights(), anchor=coordinates)) == 0.0
    assert float(code_penalty(coordinates, LossWeights())) > 0.0


def test_code_space_whitens_the_generators_codes_and_inverts():
    generator = tiny_mobile()
    space = measure_code_space(generator)
    w = generator.map(torch.randn(4000, generator.z_dim, generator=torch.Generator().manual_seed(8)))[:, 0]
    coordinates = space.encode(w)
    torch.testing.assert_close(space.decode(coordinates), w, rtol=1e-4, atol=1e-5)
    assert float(coordinates.std(0).max()) < 1.1 and float(coordinates.std(0)[-1]) > 0.9


def test_optimisation_finds_a_code_that_it_can_express():
    generator = tiny_mobile()
    random = torch.Generator().manual_seed(5)
    truth, start = generator.map(torch.randn(2, generator.z_dim, generator=random), truncation_psi=0.5).split(1)
    with torch.no_grad():
        target = generator.synthesize(truth)
    space = measure_code_space(generator)
    problem = Problem(generator, target, torch.ones(1, 1, 128, 128), None, LossWeights(row_mean=0, size=0), space)
    steps = []
    found = optimise_code(
        problem, start, (Stage(64, 40, 0.1), Stage(128, 60, 0.05, exact=True)), loss_target=0.0, on_step=steps.append
    )
    with torch.no_grad():
        before = (generator.synthesize(start) - target).square().mean()
        after = (generator.synthesize(found.w_plus) - target).square().mean()
    assert float(after) < 0.05 * float(before)
    assert len(steps) == 102 and found.steps == 100


def test_loss_target_ends_the_last_stage_early():
    generator = tiny_mobile()
    code = generator.map(torch.randn(1, generator.z_dim))
    with torch.no_grad():
        target = generator.synthesize(code)
    problem = Problem(generator, target, torch.ones(1, 1, 128, 128), None, LossWeights(), measure_code_space(generator))
    found = optimise_code(problem, code, (Stage(128, 50, 0.05, True),), loss_target=1e-3, on_step=lambda image: None)
    assert found.steps == 0 and found.loss <= 1e-3


def test_thumbnail_encoder_recovers_a_linear_relation():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(400, 3, 20, 20, generator=random) * 2 - 1
    truth = torch.randn(1200, 8, generator=random)
    w = images.flatten(1) @ truth
    encoder = fit_thumbnail_encoder(images[:380], w[:380], ridge=1e-6)
    assert float((encoder(images[:380]) - w[:380]).norm() / w[:380].norm()) < 1e-3


def test_inversion_of_a_clip_follows_it():
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 5)
    settings = InversionSettings(quality="draft", keyframe_every=2)
    inverted = invert_clip(aligned, generator, settings, perceptual=None)
    assert inverted.frame_indices.tolist() == [0, 2, 4]
    assert inverted.cuts_s is not None and len(inverted.cuts_s) == 0
    assert inverted.w_plus.shape == (3, generator.num_ws, generator.w_dim)
    with torch.no_grad():
        reconstruction = generator.synthesize(inverted.w_plus, size=64)
        mean_face = generator.synthesize(generator.w_avg.expand(1, generator.num_ws, -1), size=64)
    crops = crop_clip(aligned, [0, 2, 4], 64)
    error = (reconstruction - crops).square().mean()
    assert float(error) < 0.3 * float((mean_face - crops).square().mean())


def test_same_clip_gives_the_same_codes_and_they_know_its_cuts():
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 3)
    aligned = replace(aligned, track=replace(aligned.track, segments=np.array([(0, 2), (2, 3)])))
    settings = InversionSettings(quality="draft", keyframe_every=2)
    first, second = (invert_clip(aligned, generator, settings, perceptual=None) for _ in range(2))
    assert torch.equal(first.w_plus, second.w_plus)
    assert first.frame_indices.tolist() == [0, 1, 2] and first.cuts_s == pytest.approx([1.5 / 25])


def test_cancelled_inversion_goes_on_from_its_finished_keyframes(tmp_path):
    generator = tiny_mobile()
    aligned, _ = _clip_of(generator, 4)
    settings = InversionSettings(quality="draft", keyframe_every=1)
    whole = invert_clip(aligned, generator, settings, perceptual=None)
    seen = []

    def cancel(done, total, preview=None):
        seen.append(done)
        if done > 0.6 * total:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        invert_clip(aligned, generator, settings, perceptual=None, cache_dir=tmp_path, progress=cancel)
    stored = len(list(tmp_path.glob("*.safetensors")))
    assert 1 <= stored < 4
    previews = []
    resumed = invert_clip(
        aligned,
        generator,
        settings,
        perceptual=None,
        cache_dir=tmp_path,
        progress=lambda done, total, preview=None: previews.append(preview),
    )
    assert torch.equal(resumed.w_plus, whole.w_plus)
    assert sum(preview is not None for preview in previews) < len(seen) + len(previews)


def test_cache_forgets_the_oldest_and_survives_damage(tmp_path):
    code = OptimisedCode(torch.randn(1, 14, 16), 0.5, 7)
    cache = KeyframeCache(TensorCache(tmp_path, max_bytes=3000))
    for number in range(5):
        cache.put(f"key{number}", replace(code, steps=number))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    found = cache.get("key4")
    assert found is not None and found.steps == 4 and torch.equal(found.w_plus, code.w_plus)
    (tmp_path / "key4.safetensors").write_bytes(b"cut short")
    assert cache.get("key4") is None


def test_content_key_sees_every_part():
    base = content_key(["a", torch.zeros(3)])
    assert base != content_key(["b", torch.zeros(3)]) and base != content_key(["a", torch.zeros(4)])


def test_unknown_quality_is_refused():
    with pytest.raises(ValueError, match="draft, normal, fine"):
        InversionSettings(quality="best")


def test_keyframes_stay_affordable_however_much_the_face_moves():
    landmarks = np.random.default_rng(0).uniform(20, 80, (100, 478, 2))
    chosen = choose_keyframes(_aligned(torch.zeros(100, 100, 100, 3), landmarks))
    assert len(chosen) <= 3 + 4.5 * 99 / 25
