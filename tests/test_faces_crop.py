"""Crops and their way back: against the published crop, and as each other's inverse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.faces.crop import crop, crop_clip
from dynode_pack.dynode_core.faces.crop_reference import crop_reference
from dynode_pack.dynode_core.faces.warp import QuadWarp, quad_to_crop_matrices, warp_to_frame
from dynode_pack.dynode_core.layout import bytes_to_pictures, network_to_bytes
from dynode_pack.dynode_core.types import AlignedClip, FaceTrack


@pytest.fixture(scope="module")
def stit(golden: Callable[[str], Path]) -> dict[str, np.ndarray]:
    return load_file(golden("stit_alignment_paste_stitch.safetensors"))


def square(center: tuple[float, float], half: float, roll_deg: float = 0.0) -> np.ndarray:
    """`(1, 4, 2)` TL, BL, BR, TR."""
    angle = np.radians(roll_deg)
    x = half * np.array([np.cos(angle), np.sin(angle)])
    y = half * np.array([-np.sin(angle), np.cos(angle)])
    return (np.array([-x - y, -x + y, x + y, x - y]) + center)[None]


def waves(height: int, width: int, wavelength_px: float = 60.0) -> Tensor:
    """`(1, H, W, 3)` smooth picture in [0, 1] that is different everywhere."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    k = 2 * np.pi / wavelength_px
    return 0.5 + 0.4 * torch.stack([torch.sin(k * x), torch.cos(1.3 * k * y), torch.sin(0.8 * k * (x + y))], -1)[None]


@pytest.mark.parametrize("frame", [0, 7])
def test_reference_crop_equals_the_published_one(stit: dict[str, np.ndarray], frame: int) -> None:
    quad = stit["seq.smooth_c1.0_xy3.0.quad"][frame]
    cut = crop_reference(stit[f"frame{frame}.rgb"], quad, 64).astype(int)
    assert np.abs(cut - stit[f"frame{frame}.crop64"]).max() <= 1


def test_reference_crop_equals_the_published_one_when_it_shrinks_and_beyond_the_frame(
    stit: dict[str, np.ndarray],
) -> None:
    shrunk = crop_reference(stit["big.rgb"], stit["big.quad"], 32).astype(int)
    assert np.abs(shrunk - stit["big.crop32_shrunk"]).max() <= 1
    for padding, name in ((False, "nopad"), (True, "pad")):
        cut = crop_reference(stit["frame0.rgb"], stit["edge.quad"], 64, padding=padding).astype(int)
        assert np.abs(cut - stit[f"edge.crop64_{name}"]).max() <= 1


def test_crop_shows_the_same_place_as_the_published_one(stit: dict[str, np.ndarray]) -> None:
    quad, frame = stit["seq.smooth_c1.0_xy3.0.quad"][:1], bytes_to_pictures(stit["frame0.rgb"])[None]
    expected = stit["frame0.crop64"].astype(float)
    # The published tool adds half a pixel after shrinking by 2, which is a whole pixel of the frame.
    errors = {
        offset: np.abs(network_to_bytes(crop(frame, quad + offset, 64))[0] - expected).mean()
        for offset in (0.5, 1.0, 1.5)
    }
    assert errors[1.0] < 1.0
    assert errors[1.0] < 0.4 * min(errors[0.5], errors[1.5])


def test_matrices_equal_the_published_perspective_coefficients(stit: dict[str, np.ndarray]) -> None:
    for frame in (0, 7):
        matrix = quad_to_crop_matrices(stit["seq.smooth_c1.0_xy3.0.quad"][frame : frame + 1] + 0.5, 64)[0]
        np.testing.assert_allclose(matrix.ravel()[:8], stit[f"frame{frame}.inverse_coeffs"], atol=1e-6)


def test_crop_of_the_whole_frame_is_the_frame() -> None:
    frame = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(0))
    cut = crop(frame, square((24, 24), 24), 48)
    torch.testing.assert_close(cut, frame.permute(0, 3, 1, 2) * 2 - 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize("roll_deg", [0.0, 17.0, -130.0])
@pytest.mark.parametrize("size", [24, 48, 120])
def test_crop_of_a_linear_ramp_is_exact(size: int, roll_deg: float) -> None:
    y, x = torch.meshgrid(torch.arange(100) + 0.5, torch.arange(140) + 0.5, indexing="ij")
    frame = torch.stack([x / 140, y / 100, (x + y) / 240], dim=-1)[None]
    quad = square((71.3, 48.2), 22.7, roll_deg)
    cut = (crop(frame, quad, size)[0] + 1) / 2
    t = (np.arange(size) + 0.5) / size
    corner, across, down = quad[0, 0], quad[0, 3] - quad[0, 0], quad[0, 1] - quad[0, 0]
    places = corner + across * t[None, :, None] + down * t[:, None, None]
    np.testing.assert_allclose(cut[0].numpy(), places[..., 0] / 140, atol=2e-3 if size == 24 else 2e-5)
    np.testing.assert_allclose(cut[1].numpy(), places[..., 1] / 100, atol=2e-3 if size == 24 else 2e-5)


def test_shrinking_crop_does_not_alias() -> None:
    frame = torch.zeros(1, 256, 256, 3)
    frame[:, :, ::2] = 1.0  # stripes of one pixel: their mean is 1/2 however they are moved
    for offset in (0.0, 0.3, 0.5, 1.0):
        cut = crop(frame, square((128 + offset, 128), 100), 64)
        assert cut.abs().max() < 0.1


@pytest.mark.parametrize("size, tolerance", [(64, 0.02), (128, 0.006), (256, 0.003), (512, 0.003)])
@pytest.mark.parametrize("roll_deg", [0.0, 28.0])
def test_untouched_crop_pasted_back_is_the_frame(size: int, tolerance: float, roll_deg: float) -> None:
    frame, quad = waves(270, 360), square((180.4, 131.7), 90.3, roll_deg)
    warped, coverage = warp_to_frame(crop(frame, quad, size), quad, 270, 360)
    back = (warped + 1) / 2 * coverage + frame.permute(0, 3, 1, 2) * (1 - coverage)
    difference = (back - frame.permute(0, 3, 1, 2)).abs()
    assert difference.max() < tolerance
    assert (difference[(coverage == 0).expand_as(difference)] == 0).all()


def test_untouched_crop_beyond_the_frame_pasted_back_is_the_frame() -> None:
    frame, quad = waves(200, 220), square((12.0, 30.0), 80.0, 20.0)
    warped, coverage = warp_to_frame(crop(frame, quad, 256), quad, 200, 220)
    back = (warped + 1) / 2 * coverage + frame.permute(0, 3, 1, 2) * (1 - coverage)
    difference = (back - frame.permute(0, 3, 1, 2)).abs()
    assert coverage[..., 0, 0] == 1
    assert difference[..., 1:, 1:].max() < 0.006
    assert difference.max() < 0.025  # in the outermost row and column the mirrored picture takes part


@pytest.mark.parametrize("seed", range(12))
def test_pasting_inverts_cropping_for_any_quad_up_to_interpolation(seed: int) -> None:
    """Any place (also partly outside), size, turn and resolution: the error is that of linear interpolation."""
    random = np.random.default_rng(seed)
    half, size = random.uniform(15, 110), int(random.integers(48, 600))
    quad = square(tuple(random.uniform((0, 0), (260, 200))), half, random.uniform(-180, 180))
    frame = waves(200, 260)
    warped, coverage = warp_to_frame(crop(frame, quad, size), quad, 200, 260)
    assert coverage.max() == 1
    back = (warped + 1) / 2 * coverage + frame.permute(0, 3, 1, 2) * (1 - coverage)
    difference = (back - frame.permute(0, 3, 1, 2)).abs()
    step_px = max(1.0, 2 * half / size)
    assert difference[..., 1:-1, 1:-1].max() < 0.004 + 0.003 * step_px**2
    assert (difference[(coverage == 0).expand_as(difference)] == 0).all()


@pytest.mark.parametrize("size", [32, 400])
def test_coverage_is_the_quad_less_its_rim(size: int) -> None:
    quad = square((100.2, 90.6), 41.3, 33.0)
    _, coverage = warp_to_frame(torch.zeros(1, 3, size, size), quad, 180, 200)
    rim = max(0.5, 41.3 / size) + 0.5
    assert float(coverage.sum()) == pytest.approx((2 * (41.3 - rim)) ** 2, rel=0.003)
    assert coverage.min() >= 0 and coverage.max() <= 1


@pytest.mark.parametrize("size", [24, 90, 400])
def test_part_of_a_frame_is_warped_as_the_whole_and_pictures_together_as_alone(size: int) -> None:
    quad = square((100.2, 90.6), 41.3, 33.0)
    quad[0, 2] += (9.0, -5.0)  # a perspective, too
    pictures = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    warped, coverage = warp_to_frame(pictures, np.repeat(quad, 2, axis=0), 180, 200)
    x0, y0, x1, y1 = 80, 60, 141, 117
    way = QuadWarp(quad[0], (x0, y0, x1, y1))
    together = way.apply(pictures.flatten(0, 1))
    assert torch.equal(together, torch.cat([way.apply(picture) for picture in pictures]))
    inside = (coverage[0, 0] > 0)[y0:y1, x0:x1]
    assert 0.5 < float(inside.float().mean()) < 1
    torch.testing.assert_close(together[:, inside], warped.flatten(0, 1)[:, y0:y1, x0:x1][:, inside], atol=1e-4, rtol=0)


def test_beyond_the_frame_the_crop_is_soft_and_inside_it_is_untouched() -> None:
    frame = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(1))
    inside = crop(frame, square((64, 64), 64), 128)[0]
    shifted = crop(frame, square((0, 64), 64), 128)[0]
    torch.testing.assert_close(shifted[:, :, 64:], inside[:, :, :64], atol=1e-4, rtol=0)
    assert shifted[:, :, :20].std() < 0.3 * shifted[:, :, 64:].std()


def test_quad_entirely_outside_and_tiny_frames_give_finite_crops() -> None:
    for frame_size, center in (((40, 50), (900.0, -700.0)), ((1, 1), (0.5, 0.5)), ((2, 3), (1.0, 1.0))):
        frame = torch.full((1, *frame_size, 3), 0.25)
        cut = crop(frame, square(center, 30), 16)
        torch.testing.assert_close(cut, torch.full_like(cut, -0.5), atol=1e-4, rtol=0)


def make_aligned(num_frames: int) -> AlignedClip:
    frames = torch.rand(num_frames, 40, 60, 3, generator=torch.Generator().manual_seed(2))
    quads = np.concatenate([square((30 + t * 0.3, 20), 15 + t * 0.2) for t in range(num_frames)])
    boxes = np.tile([10.0, 5, 50, 35], (num_frames, 1))
    track = FaceTrack(np.zeros((num_frames, 68, 2)), boxes, np.ones(num_frames, np.float32), np.ones(num_frames, bool))
    return AlignedClip(TensorClip(frames, 25), quads, track, crop_size=24)


def test_crop_clip_gives_any_order_and_the_same_crop_alone_or_among_others() -> None:
    aligned = make_aligned(21)
    together = crop_clip(aligned, [20, 3, 3, 0, *range(21)])
    assert together.shape == (25, 3, 24, 24)
    for place, index in ((0, 20), (1, 3), (2, 3), (3, 0), (24, 20)):
        torch.testing.assert_close(together[place], crop_clip(aligned, [index])[0], atol=0, rtol=0)
    assert crop_clip(aligned, [1], 8).shape == (1, 3, 8, 8)
    assert crop_clip(aligned, []).shape == (0, 3, 24, 24)


def test_nothing_handed_in_is_changed() -> None:
    frame, quad = waves(50, 60), square((5, 5), 20)
    kept_frame, kept_quad = frame.clone(), quad.copy()
    cut = crop(frame, quad, 16)
    kept_cut = cut.clone()
    warp_to_frame(cut, quad, 50, 60)
    assert torch.equal(frame, kept_frame) and torch.equal(cut, kept_cut) and (quad == kept_quad).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="quads should have shape"):
        crop(waves(20, 20), np.zeros((2, 4, 2)), 8)
    with pytest.raises(ValueError, match="no area"):
        crop(waves(20, 20), np.ones((1, 4, 2)), 8)
    with pytest.raises(ValueError, match="1 px or more"):
        crop(waves(20, 20), square((10, 10), 5), 0)
    with pytest.raises(ValueError, match="quads should have shape"):
        warp_to_frame(torch.zeros(2, 3, 8, 8), square((10, 10), 5), 20, 20)
