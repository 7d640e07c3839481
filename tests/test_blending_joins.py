"""Ways to join a face to its frame: seams, colours, grain, and things in front of the face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.blending.composite import warp_into
from dynode_pack.dynode_core.blending.compositor import Compositor, SlowValue
from dynode_pack.dynode_core.blending.crop_space import blur_counting, box_to_crop
from dynode_pack.dynode_core.blending.grain import grain_deviation, make_grain
from dynode_pack.dynode_core.blending.joins import feathered, membrane, multiband
from dynode_pack.dynode_core.blending.occluders import find_occluders
from dynode_pack.dynode_core.blending.region import FaceRegion
from dynode_pack.dynode_core.blending.settings import JOINS, MODES, BlendSettings
from dynode_pack.dynode_core.faces.crop import crop
from dynode_pack.dynode_core.layout import LUMA

HEIGHT, WIDTH = 140, 170


def face_region(radius: float = 38, ramp: float = 8) -> FaceRegion:
    """A disc with a soft edge in the middle of a slightly turned quad of 100 px."""
    angle = 0.15
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([85.0, 70])
    quad = np.array([[-50, -50], [-50, 50], [50, 50], [50, -50]]) @ turn.T + centre
    x0, y0, x1, y1 = 40, 25, 130, 115
    y, x = torch.meshgrid(torch.arange(y0, y1) + 0.5, torch.arange(x0, x1) + 0.5, indexing="ij")
    distance = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt()
    inside = ((radius - distance) / ramp + 0.5).clamp(0, 1)
    return FaceRegion((x0, y0, x1, y1), quad, inside * inside * (3 - 2 * inside))


def picture(seed: int = 0) -> torch.Tensor:
    """`(HEIGHT, WIDTH, 3)` smooth colours in [0.2, 0.8]."""
    coarse = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic", align_corners=False)[0]
    return (0.2 + 0.6 * fine.clamp(0, 1)).permute(1, 2, 0).contiguous()


def put(settings: BlendSettings, frame: torch.Tensor, edited: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
    return Compositor(settings).put(frame, edited, base, face_region(), 0.0, 0)


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("mode", ["residual", "adaptive"])
@pytest.mark.parametrize("occluders", [False, True])
def test_no_change_is_exactly_no_change(join: str, mode: str, occluders: bool) -> None:
    frame = picture()
    face = torch.rand(3, 64, 64) * 2 - 1
    result = put(BlendSettings(mode=mode, join=join, keep_occluders=occluders), frame, face, face.clone())
    assert torch.equal(result, frame)


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("mode", MODES)
def test_outside_the_mask_nothing_changes(join: str, mode: str) -> None:
    frame, region = picture(), face_region()
    settings = BlendSettings(join=join, mode=mode, grain=True, keep_occluders=True)
    result = put(settings, frame, torch.rand(3, 64, 64), torch.rand(3, 64, 64))
    outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    outside[region.slices()] = region.mask == 0
    assert torch.equal(result[outside], frame[outside])


def test_a_frame_is_written_where_it_is_wanted() -> None:
    frame, face = picture(), torch.rand(3, 64, 64)
    out = torch.full_like(frame, torch.nan)
    compositor = Compositor(BlendSettings())
    result = compositor.put(frame, face, -face, face_region(), 0.0, 0, out=out)
    assert result is out and torch.equal(out, put(BlendSettings(), frame, face, -face))


def seam(change: torch.Tensor, region: FaceRegion) -> float:
    """Mean slope of what was added, over the ramp of the mask."""
    ring = (region.mask > 0.02) & (region.mask < 0.98)
    slope = torch.zeros_like(region.mask)
    slope[1:, :] += change.diff(dim=0).abs().mean(dim=-1)
    slope[:, 1:] += change.diff(dim=1).abs().mean(dim=-1)
    return float(slope[ring].mean())


def test_seams_of_a_face_in_another_light() -> None:
    """A face that is 0.15 darker and lit from the side: the better joins leave less of an edge than the feather."""
    region = face_region()
    x = torch.linspace(-0.1, 0.1, 90)[None, :, None]
    change = (-0.15 + x).expand(90, 90, 3).contiguous()
    plain = seam(feathered(change, region.mask), region)
    surface = warp_into(membrane(change, region), region)
    assert seam(feathered(change - surface, region.mask), region) < 0.1 * plain
    wide = face_region(ramp=30)
    assert seam(multiband(change, wide.mask), wide) < 0.8 * seam(feathered(change, wide.mask), wide) + 0.002
    assert float(feathered(change - surface, region.mask).abs().max()) < 0.02


def test_multiband_keeps_fine_detail_to_the_edge_and_spreads_light() -> None:
    region = face_region(ramp=40)
    checks = torch.zeros(90, 90, 3)
    checks[::2, ::2], checks[1::2, 1::2] = 0.1, 0.1
    fine = checks - checks.mean()
    middle = np.s_[40:50, 40:50]
    np.testing.assert_allclose(multiband(fine, region.mask)[middle], fine[middle], atol=2e-3)
    flat = torch.full((90, 90, 3), 0.2)
    joined = multiband(flat, face_region(ramp=2).mask)
    edge = joined[45].diff(dim=0).abs().amax()
    assert edge < 0.6 * feathered(flat, face_region(ramp=2).mask)[45].diff(dim=0).abs().amax()


@pytest.mark.parametrize("shape", [(3, 5), (9, 9), (17, 40)])
def test_multiband_works_on_small_boxes(shape: tuple[int, int]) -> None:
    joined = multiband(torch.full((*shape, 3), 0.1), torch.ones(shape))
    np.testing.assert_allclose(joined, 0.1, atol=1e-6)


def test_poisson_keeps_what_the_edit_draws_inside() -> None:
    region, frame = face_region(), picture()
    base = crop(frame[None], region.quad[None], 96)[0]
    edited = base - 0.2
    edited[:, 40:56, 40:56] += 0.4
    result = put(BlendSettings(mode="residual", join="poisson"), frame, edited, base)
    change = box_to_crop((result - frame)[region.slices()].permute(2, 0, 1), region, 96)
    assert float(change[:, 44:52, 44:52].mean()) == pytest.approx(0.2, abs=0.02)
    assert float(change[:, 62:70, 30:66].abs().mean()) < 0.03


def test_adaptive_shows_the_new_feature_and_keeps_the_detail_around_it() -> None:
    """The reconstruction lacks all detail and draws a mouth in the wrong place; the edit moves it."""
    region = face_region()
    frame = picture() + make_grain(HEIGHT, WIDTH, deviation=0.03, seed=4)
    base = torch.nn.functional.avg_pool2d(crop(picture()[None], region.quad[None], 96), 9, stride=1, padding=4)[0]
    base, edited = base.clone(), base.clone()
    base[:, 60:64, 40:56] = -0.8
    edited[:, 68:72, 40:56] = -0.8
    results = {mode: put(BlendSettings(mode=mode), frame, edited, base) for mode in MODES}
    rows, columns = region.slices()

    def seen(image: torch.Tensor) -> torch.Tensor:
        return box_to_crop(image[rows, columns].permute(2, 0, 1), region, 96)

    mouth, far = np.s_[:, 61:63, 44:52], np.s_[:, 24:44, 30:66]
    np.testing.assert_allclose(seen(results["adaptive"])[mouth], seen(results["replace"])[mouth], atol=0.02)
    assert float((seen(results["residual"]) - seen(results["replace"]))[mouth].mean()) > 0.15  # a ghost of the old one
    assert torch.equal(seen(results["adaptive"])[far], seen(frame)[far])
    assert not torch.equal(seen(results["replace"])[far], seen(frame)[far])


def test_the_membrane_is_steady_under_noise() -> None:
    region = face_region()
    generator = torch.Generator().manual_seed(0)
    surfaces = [membrane(0.1 + 0.1 * torch.randn(90, 90, 3, generator=generator), region) for _ in range(4)]
    inside = box_to_crop(region.mask[None], region, 64)[0] > 0.5
    for surface in surfaces:
        assert float((surface[:, inside] - 0.1).abs().mean()) < 0.03


def test_crop_coordinates_agree_with_the_crop() -> None:
    frame, region = picture(), face_region(radius=30, ramp=4)
    cut = (crop(frame[None], region.quad[None], 48)[0] + 1) / 2
    ours = box_to_crop(frame[region.slices()].permute(2, 0, 1), region, 48)
    inside = box_to_crop(region.mask[None], region, 48)[0] > 0.99
    np.testing.assert_allclose(ours[:, inside], cut[:, inside], atol=0.01)


def test_blur_counts_only_what_has_weight() -> None:
    values = torch.full((1, 40, 40), 5.0)
    values[:, :, 20:] = -100
    weight = torch.zeros(1, 40, 40)
    weight[:, :, :20] = 1
    np.testing.assert_allclose(blur_counting(values, weight, 3)[0, 15:25, :24], 5.0, atol=1e-3)


def test_grain_is_measured_and_made() -> None:
    mask = torch.ones(120, 120)
    flat = torch.full((120, 120, 3), 0.5)
    for deviation in (0.0, 0.01, 0.03):
        grainy = flat + make_grain(120, 120, deviation=deviation, seed=3)
        assert grain_deviation(grainy @ LUMA, mask) == pytest.approx(deviation, rel=0.06, abs=1e-6)
    y, x = torch.meshgrid(torch.linspace(0, 1, 120), torch.linspace(0, 1, 120), indexing="ij")
    slope = torch.stack([x, y, x + y], dim=-1) / 2
    slope[:, 60:] = 0.1
    assert grain_deviation(slope @ LUMA, mask) < 1e-3
    assert torch.equal(make_grain(8, 9, deviation=0.01, seed=1), make_grain(8, 9, deviation=0.01, seed=1))
    assert not torch.equal(make_grain(8, 9, deviation=0.01, seed=1), make_grain(8, 9, deviation=0.01, seed=2))


def test_a_smooth_face_gets_the_grain_of_its_frame() -> None:
    region = face_region()
    frame = picture() + make_grain(HEIGHT, WIDTH, deviation=0.02, seed=9)
    smooth = crop(picture()[None], region.quad[None], 96)[0]
    part = region.slices()
    for grain, low, high in ((False, 0.0, 0.004), (True, 0.015, 0.025)):
        result = put(BlendSettings(mode="replace", grain=grain, detail_match=False), frame, smooth, smooth)
        assert low <= grain_deviation(result[part] @ LUMA, region.mask) <= high
    own = put(BlendSettings(mode="replace", grain=True), frame, smooth, smooth)  # the clip's own, and none more
    assert 0.015 <= grain_deviation(own[part] @ LUMA, region.mask) <= 0.025


def occluded(colour: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(frame with a bar across the face, reconstruction without it, `(h, w)` where the bar is in the region's box)."""
    region, frame = face_region(), picture()
    base = crop(frame[None], region.quad[None], 96)[0] * 0.97 - 0.02
    covered = frame.clone()
    covered[60:80, 30:95] = torch.tensor(colour)
    bar = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    bar[60:80, 30:95] = True
    return covered, base, bar[region.slices()]


@pytest.mark.parametrize("colour", [(0.95, 0.95, 0.95), (0.05, 0.1, 0.05), (0.9, 0.1, 0.1)])
def test_a_bar_before_the_face_stays(colour: tuple[float, float, float]) -> None:
    frame, base, bar = occluded(colour)
    region = face_region()
    settings = BlendSettings(mode="replace", colour_match=False, detail_match=False)
    face = base + 0.3
    kept = put(replace(settings, keep_occluders=True), frame, face, base)
    erased = put(settings, frame, face, base)
    inner = bar & (region.mask > 0.9)
    inner[:, 50:] = False
    part = region.slices()
    assert float((kept - frame)[part][inner].abs().mean()) < 0.03
    assert float((erased - frame)[part][inner].abs().mean()) > 0.15
    free = ~bar & (region.mask > 0.9)
    free[22:68] = False
    np.testing.assert_allclose(kept[part][free], erased[part][free], atol=1e-3)


def test_a_plain_reconstruction_has_no_occluders() -> None:
    frame, region = picture(), face_region()
    base = crop(frame[None], region.quad[None], 96)[0]
    noise = 0.05 * torch.randn(base.shape, generator=torch.Generator().manual_seed(0))
    assert float(find_occluders(frame, base * 0.9 - 0.1 + noise, region).max()) == 0


def test_slow_values_follow_slowly_and_start_anew() -> None:
    slow = SlowValue(0.1, jump=1.0)
    start, step = torch.zeros(2), torch.full((2,), 0.5)
    assert torch.equal(slow.follow(start, 1.0), start)
    after = slow.follow(step, 1.1)
    assert float(after[0]) == pytest.approx(0.5 * (1 - np.exp(-1)), abs=1e-6)
    assert torch.equal(slow.follow(step, 9.0), step)  # long after
    assert torch.equal(slow.follow(start, 8.0), start)  # back in time
    assert torch.equal(slow.follow(start + 7, 8.01), start + 7)  # a new scene
