"""The sharpness of a made face against that of its frame."""

from __future__ import annotations

import pytest
import torch
from test_blending_joins import HEIGHT, WIDTH, face_region, put

from dynode_pack.dynode_core.blending.detail import (
    LEAST_GAIN,
    MOST_GAIN,
    SIGMAS_PX,
    Detail,
    added_detail,
    detail_gains,
    kept_detail,
)
from dynode_pack.dynode_core.blending.detail import detail_of as detail_of_luma
from dynode_pack.dynode_core.blending.grain import make_grain
from dynode_pack.dynode_core.blending.settings import BlendSettings
from dynode_pack.dynode_core.faces.crop import crop
from dynode_pack.dynode_core.layout import LUMA

MASK = torch.ones(HEIGHT, WIDTH)


def drawing(seed: int = 0, line_px: int = 5) -> torch.Tensor:
    """`(HEIGHT, WIDTH, 3)`: patches with hard edges, `line_px` wide."""
    rows, columns = HEIGHT // line_px, WIDTH // line_px
    coarse = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse[None, None], (HEIGHT, WIDTH), mode="nearest")[0, 0]
    return (0.3 + 0.4 * fine)[..., None].expand(-1, -1, 3).contiguous()


def detail_of(picture: torch.Tensor, mask: torch.Tensor) -> Detail:
    return detail_of_luma(picture @ LUMA, mask)


def blurred(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    import cv2

    return torch.from_numpy(cv2.GaussianBlur(picture.numpy(), (0, 0), sigma))


def strengths(picture: torch.Tensor, mask: torch.Tensor = MASK) -> torch.Tensor:
    """`(B,)` RMS of each band."""
    return detail_of(picture, mask).bands[:, mask > 0.9].square().mean(dim=1).sqrt()


def test_gains_bring_a_blurred_picture_back_to_the_strength_of_the_sharp_one() -> None:
    sharp = drawing()
    soft = blurred(sharp, 0.5)
    gains = detail_gains(detail_of(sharp, MASK), detail_of(soft, MASK), MASK)
    restored = soft + added_detail(detail_of(soft, MASK), gains)
    assert float(gains[0]) > 1.1 and float(gains[0]) > float(gains[-1]) > 0.99
    lost = (strengths(sharp) - strengths(soft)).abs()
    assert float(lost[0]) > 0.005
    assert float((strengths(restored) - strengths(sharp)).abs()[0]) < 0.4 * float(lost[0])


def test_gains_are_bounded_and_a_sharper_face_is_softened() -> None:
    sharp, soft = detail_of(drawing(), MASK), detail_of(blurred(drawing(), 3), MASK)
    assert float(detail_gains(sharp, soft, MASK).max()) == pytest.approx(MOST_GAIN)
    assert float(detail_gains(soft, sharp, MASK).min()) == pytest.approx(LEAST_GAIN)


def test_equal_detail_grain_and_nothing_at_all_are_no_reason_to_sharpen() -> None:
    sharp = detail_of(drawing(), MASK)
    assert torch.equal(detail_gains(sharp, sharp, MASK), torch.ones(len(SIGMAS_PX)))
    smooth = blurred(drawing(line_px=20), 4)
    grainy = smooth + make_grain(HEIGHT, WIDTH, deviation=0.03, seed=1)
    assert float(strengths(grainy)[0] / strengths(smooth)[0]) > 5
    gains = detail_gains(detail_of(grainy, MASK), detail_of(smooth, MASK), MASK)
    assert float((gains - 1).abs().max()) < 0.1
    few = torch.zeros(HEIGHT, WIDTH)
    few[:5, :5] = 1
    assert torch.equal(detail_gains(sharp, detail_of(smooth, few), few), torch.ones(len(SIGMAS_PX)))


def test_detail_is_kept_where_the_edit_leaves_it_alone() -> None:
    region = face_region()
    mask = region.mask
    base = drawing()[region.slices()]
    edited = base.clone()
    edited[:, 45:] = drawing(seed=1)[region.slices()][:, 45:]
    kept = kept_detail(detail_of(base, mask), detail_of(edited, mask), detail_of(base, mask), region)[0]
    assert float(kept[40:56, 20:36].min()) > 0.95 and float(kept[40:56, 60:76].max()) < 0.2


def test_detail_of_what_stands_before_the_face_is_not_kept() -> None:
    region = face_region()
    mask = region.mask
    face = blurred(drawing(line_px=10), 2)[region.slices()]
    source = face.clone()
    source[20:30, 20:70] = 1.0
    known = detail_of(face, mask)
    kept = kept_detail(detail_of(source, mask), known, known, region)[0]
    assert float(kept[18:40, 35:55].amin(dim=0).max()) < 0.05 and float(kept[60:70, 30:60].min()) > 0.95


def test_lines_that_the_source_has_elsewhere_are_not_kept_and_sharper_ones_at_the_same_place_are() -> None:
    region = face_region()
    mask, source = region.mask, drawing()[region.slices()]
    base = blurred(drawing(), 0.8)[region.slices()]
    base[:, 45:] = blurred(drawing(seed=1), 0.8)[region.slices()][:, 45:]
    known = detail_of(base, mask)
    kept = kept_detail(detail_of(source, mask), known, known, region)[0]
    assert float(kept[40:56, 20:36].min()) > 0.95 and float(kept[40:56, 60:76].mean()) < 0.2
    faint = 0.5 + 0.05 * (source - 0.5)
    faint_base = detail_of(0.5 + 0.05 * (base - 0.5), mask)
    kept = kept_detail(detail_of(faint, mask), faint_base, faint_base, region)[0]
    assert float(kept[40:56, 60:76].min()) > 0.95  # the texture of skin is nowhere the same


@pytest.mark.parametrize("mode", ["adaptive", "replace"])
def test_an_edited_face_gets_the_sharpness_of_its_frame(mode: str) -> None:
    """A soft reconstruction; the edit redraws one half of it."""
    region, frame = face_region(), drawing()
    base = crop(blurred(frame, 1.2)[None], region.quad[None], 200)[0]
    edited = base.clone()
    edited[:, :, 100:] = crop(blurred(drawing(seed=1), 1.2)[None], region.quad[None], 200)[0][:, :, 100:]
    part, middle = region.slices(), torch.zeros_like(region.mask)
    middle[20:70, 55:70] = 1
    wanted = strengths(frame[part], middle)
    soft, matched = (
        put(BlendSettings(mode=mode, colour_match=False, detail_match=on), frame, edited, base)[part]
        for on in (False, True)
    )
    assert float(strengths(soft, middle)[0]) < 0.5 * float(wanted[0])
    assert 1.3 * float(strengths(soft, middle)[0]) < float(strengths(matched, middle)[0]) < 1.2 * float(wanted[0])
    left = torch.zeros_like(region.mask)
    left[25:65, 20:35] = 1
    left = left > 0
    untouched = frame[part]
    assert float((matched - untouched)[left].abs().mean()) <= 0.6 * float((soft - untouched)[left].abs().mean()) + 1e-4


def test_faces_without_their_unedited_version_are_sharpened_too() -> None:
    region, frame = face_region(), drawing()
    face = crop(blurred(drawing(seed=1), 1.0)[None], region.quad[None], 200)[0]
    part = region.slices()
    off, on = (put(BlendSettings(mode="replace", detail_match=m), frame, face, None)[part] for m in (False, True))
    assert float(strengths(on, region.mask)[0]) > 1.2 * float(strengths(off, region.mask)[0])
