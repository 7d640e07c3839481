"""What was changed in a picture, and the edit of the code that shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_faces_mesh_warp import mesh
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.editing.from_image import PictureSettings, fit_picture
from dynode_pack.dynode_core.editing.picture_change import PictureChange, compare_pictures
from dynode_pack.dynode_core.editing.picture_fit import FitFrame, fit_offset
from dynode_pack.dynode_core.editing.picture_frames import ClipCodes, carried_change, code_at, supporting_frames
from dynode_pack.dynode_core.editing.picture_report import PictureReport, measure_edit
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.faces.landmarks import Face
from dynode_pack.dynode_core.inversion.code_space import measure_code_space
from dynode_pack.dynode_core.inversion.losses import LossWeights
from dynode_pack.dynode_core.inversion.optimise import Stage
from dynode_pack.dynode_core.types import AlignedClip, EditedLatent, FaceTrack
from dynode_pack.dynode_core.video import TensorClip

HEIGHT, WIDTH, SIZE = 120, 180, 64
QUAD = np.array([(50, 20), (50, 100), (130, 100), (130, 20)], float)
PATCH = (slice(50, 64), slice(80, 100))
"""Rows and columns of the frame that are painted."""


def smooth(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A soft random picture `(H, W, 3)` in [0.2, 0.8]."""
    rough = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(seed))
    return 0.2 + 0.6 * F.interpolate(rough, (height, width), mode="bilinear")[0].permute(1, 2, 0)


def clip(frames: torch.Tensor | None = None, moves: tuple[float, ...] = (0.0, 0.02, 0.05, 0.01)) -> AlignedClip:
    """A face mesh that moves inside a quad that does not."""
    frames = torch.stack([smooth(HEIGHT, WIDTH)] * len(moves)) if frames is None else frames
    side, corner = QUAD[1, 1] - QUAD[0, 1], QUAD[0]
    landmarks = np.stack([(mesh() + (0, move)) * side + corner for move in moves])
    boxes = np.tile([50.0, 20, 130, 100], (len(moves), 1))
    track = FaceTrack(landmarks, boxes, np.ones(len(moves), np.float32), np.ones(len(moves), bool))
    return AlignedClip(TensorClip(frames, 25), np.tile(QUAD, (len(moves), 1, 1)), track, crop_size=SIZE)


def painted_frame(aligned: AlignedClip) -> torch.Tensor:
    frame = aligned.clip.read([0])[0].clone()
    frame[PATCH] = torch.tensor([0.95, 0.1, 0.1])
    return frame


def patch_share(changed: torch.Tensor) -> tuple[float, float]:
    """Mean of a mask inside of the painted patch and well outside of it."""
    inside = torch.zeros(HEIGHT, WIDTH)
    inside[PATCH] = 1
    grown = F.max_pool2d(inside[None, None], 9, 1, 4)[0, 0]
    rows, columns = slice(20, 100), slice(50, 130)
    inside, grown = (F.adaptive_avg_pool2d(x[None, None, rows, columns], SIZE)[0, 0] for x in (inside, grown))
    return float(changed[0, 0][inside > 0.99].mean()), float(changed[0, 0][grown < 0.01].mean())


@pytest.mark.parametrize("form", ["frame", "resized frame", "crop", "large crop"])
def test_frame_and_crop_say_the_same(form: str) -> None:
    aligned = clip()
    picture = painted_frame(aligned)
    if form == "resized frame":  # what models do that want multiples of 8
        picture = F.interpolate(picture.permute(2, 0, 1)[None], (240, 360), mode="bilinear")[0].permute(1, 2, 0)
    elif form != "frame":
        size = 80 if form == "crop" else 160
        rows, columns = slice(20, 100), slice(50, 130)
        picture = F.interpolate(picture[rows, columns].permute(2, 0, 1)[None], (size, size), mode="bilinear")[0]
        picture = picture.permute(1, 2, 0)
    change = compare_pictures(aligned, picture)
    inside, outside = patch_share(change.changed)
    assert inside > 0.95 and outside == 0 and not change.notes
    red = change.difference[0, 0][change.changed[0, 0] > 0.99]
    assert float(red.mean()) > 0.3


def test_noise_everywhere_is_no_change_but_the_patch_is() -> None:
    aligned = clip()
    noise = torch.randn(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(3))
    inside, outside = patch_share(compare_pictures(aligned, (painted_frame(aligned) + 0.01 * noise)).changed)
    assert inside > 0.95 and outside < 0.02


def test_a_blurred_place_counts_although_its_mean_stays() -> None:
    frames = torch.rand(2, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.3
    aligned = clip(frames, (0.0, 0.0))
    picture = frames[0].clone()
    picture[PATCH] = picture[PATCH].mean(dim=(0, 1))
    inside, outside = patch_share(compare_pictures(aligned, picture).changed)
    assert inside > 0.9 and outside == 0


def test_a_mask_says_what_counts() -> None:
    aligned = clip()
    picture = (painted_frame(aligned) * 0.7 + 0.1).clamp(0, 1)
    mask = torch.zeros(HEIGHT // 2, WIDTH // 2)
    mask[25:32, 40:50] = 1
    inside, outside = patch_share(compare_pictures(aligned, picture, mask=mask).changed)
    assert inside > 0.8 and outside == 0


def finder_of(picture_mesh: np.ndarray, crop_mesh: np.ndarray):
    """A detector for one scene: in pictures of the crop's size it finds one face, in others the other."""

    def find(picture: np.ndarray) -> list[Face]:
        landmarks = crop_mesh * SIZE if picture.shape[:2] == (SIZE, SIZE) else picture_mesh
        return [Face(landmarks, 0.9)]

    return find


def test_another_framing_is_laid_over_by_the_face() -> None:
    aligned = clip()
    frame = painted_frame(aligned)
    picture = frame[10:110, 30:160]  # 130 x 100, neither the frame's shape nor square
    placed = aligned.track.landmarks[0] - (30, 10)
    with pytest.raises(ValueError, match="130 x 100, and faces can't be looked for"):
        compare_pictures(aligned, picture)
    change = compare_pictures(aligned, picture, find_faces=finder_of(placed, mesh()))
    inside, outside = patch_share(change.changed)
    assert inside > 0.95 and outside == 0 and "another framing" in change.notes[0]


def test_a_picture_that_moved_is_moved_back() -> None:
    aligned = clip()
    frame = painted_frame(aligned)
    picture = torch.roll(frame, shifts=(4, -5), dims=(0, 1))
    calls = []

    def find(image: np.ndarray) -> list[Face]:
        calls.append(image)
        shift = np.array([(0, 0), (-5 / 80, 4 / 80), (0, 0)][len(calls) - 1])  # source, picture, picture moved back
        return [Face((mesh() + shift) * SIZE, 0.9)]

    change = compare_pictures(aligned, picture, find_faces=find)
    inside, outside = patch_share(change.changed)
    assert inside > 0.9 and outside == 0 and "moved back" in change.notes[0]


def test_a_picture_without_the_face_is_refused() -> None:
    aligned = clip()

    def find(image: np.ndarray) -> list[Face]:
        return [Face(mesh() * SIZE, 0.9)] if image.mean() > 20 else []

    with pytest.raises(ValueError, match="No face was found in the edited picture"):
        compare_pictures(aligned, torch.zeros(HEIGHT, WIDTH, 3), find_faces=find)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        compare_pictures(clip(), torch.full((HEIGHT, WIDTH, 3), torch.nan))


def test_what_is_handed_in_is_not_changed() -> None:
    aligned = clip()
    picture = painted_frame(aligned)
    before = picture.clone()
    compare_pictures(aligned, picture)
    assert torch.equal(picture, before)


def test_the_change_is_carried_with_the_mesh() -> None:
    aligned = clip()
    change = compare_pictures(aligned, painted_frame(aligned))
    here = carried_change(aligned, change, 0, SIZE)
    torch.testing.assert_close(here[:, :3], change.difference, atol=1e-4, rtol=0)
    aligned = clip(moves=(0.0,) * 5 + (4 / SIZE,) * 7)  # landmarks are smoothed over time
    there = carried_change(aligned, change, 9, SIZE)
    start = carried_change(aligned, change, 0, SIZE)
    torch.testing.assert_close(there, torch.roll(start, 4, dims=2), atol=0.06, rtol=0)


def test_supporting_frames_are_those_that_differ_most() -> None:
    aligned = clip(moves=(0.0, 0.01, 0.02, 0.08, 0.03, 0.0))
    codes = ClipCodes(torch.zeros(6, 2, 4), np.arange(6))
    assert supporting_frames(aligned, codes, 0, 2)[0] == 3
    assert len(set(supporting_frames(aligned, codes, 0, 9))) == 5
    cut = replace(aligned, track=replace(aligned.track, segments=np.array([[0, 3], [3, 6]])))
    assert set(supporting_frames(cut, codes, 0, 9)) == {1, 2}


def test_the_code_of_any_frame_lies_between_its_neighbours() -> None:
    aligned = clip()
    codes = ClipCodes(torch.stack([torch.zeros(2, 4), torch.ones(2, 4)]), np.array([0, 3]))
    latent = EditedLatent(codes.w_plus[0], codes.w_plus[0], (), "x")
    torch.testing.assert_close(code_at(latent, codes, aligned, 1), torch.full((2, 4), 1 / 3))
    assert torch.equal(code_at(latent, None, aligned, 0), codes.w_plus[0])
    with pytest.raises(ValueError, match="only the code of the first one"):
        code_at(latent, None, aligned, 2)
    with pytest.raises(ValueError, match="frames 0 to 3"):
        code_at(latent, codes, aligned, 4)


def scene() -> tuple[EditedLatent, PictureChange, AlignedClip, object, torch.Tensor]:
    """A generated face as clip, and the same after a known change of its code."""
    generator = tiny_mobile()
    code, other = generator.map(torch.randn(2, 16, generator=torch.Generator().manual_seed(2)), truncation_psi=0.4)
    goal = code + 0.8 * (other - code)
    with torch.no_grad():
        pictures = ((generator.synthesize(torch.stack([code, goal])) + 1) / 2).permute(0, 2, 3, 1).clamp(0, 1)
    quad = np.array([(0, 0), (0, 128), (128, 128), (128, 0)], float)
    track = FaceTrack(
        np.stack([mesh() * 128] * 2), np.tile([0.0, 0, 128, 128], (2, 1)), np.ones(2, np.float32), np.ones(2, bool)
    )
    aligned = AlignedClip(TensorClip(pictures[:1].repeat(2, 1, 1, 1), 25), np.tile(quad, (2, 1, 1)), track, 128)
    change = compare_pictures(aligned, pictures[1], mask=torch.ones(128, 128))
    return EditedLatent(code, code, (), generator.family), change, aligned, generator, pictures


def test_the_fit_shows_the_change_and_reports_it() -> None:
    latent, change, aligned, generator, _ = scene()
    found = fit_picture(latent, change, aligned, generator, PictureSettings(quality="fine"), perceptual=None)
    assert found.report.expressed > 0.7 and found.report.area == 1
    assert f"{found.report.expressed:.0%} expressed" in found.latent.edits[0]
    assert found.pictures.shape == (4, 3, 128, 128) and found.texture is not None
    assert "The generator expresses" in found.report.text()
    assert torch.equal(latent.w_plus_0, latent.base_w_plus_0)


def test_strength_is_a_factor_on_the_same_change_and_0_is_none() -> None:
    latent, change, aligned, generator, _ = scene()
    offsets = []
    for strength in (0.0, 1.0, 2.0):
        settings = PictureSettings(strength=strength, quality="draft")
        found = fit_picture(latent, change, aligned, generator, settings, perceptual=None)
        offsets.append(found.latent.w_plus_0 - latent.w_plus_0)
    assert float(offsets[0].abs().max()) == 0 and float(offsets[1].abs().max()) > 0.01
    torch.testing.assert_close(offsets[2], 2 * offsets[1])


def test_layers_limit_the_rows() -> None:
    latent, change, aligned, generator, _ = scene()
    settings = PictureSettings(layers="2-4", quality="draft")
    found = fit_picture(latent, change, aligned, generator, settings, perceptual=None)
    rows = (found.latent.w_plus_0 != latent.w_plus_0).any(dim=1).nonzero().flatten().tolist()
    assert rows == [2, 4] and found.latent.edits[0].startswith("picture=1@2-4")


def test_cancelling_comes_through() -> None:
    latent, change, aligned, generator, _ = scene()

    def cancel(done: int, total: int, preview: np.ndarray | None = None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_picture(latent, change, aligned, generator, perceptual=None, progress=cancel)


def test_one_offset_for_several_frames_holds_better_in_each() -> None:
    """What is wrong with the target of one frame, such as a hand before the face, does not enter the offset."""
    generator = tiny_mobile(3)
    codes = generator.map(torch.randn(4, 16, generator=torch.Generator().manual_seed(5)), truncation_psi=0.6)
    way = 0.5 * (codes[3] - generator.w_avg)
    with torch.no_grad():
        targets = generator.synthesize(codes[:3] + way)
    wrong = targets[:1].clone()
    wrong[..., 30:90, 30:90] += 0.4
    ones = torch.ones(1, 1, 128, 128)
    frames = [FitFrame(codes[k : k + 1], (wrong, targets[1:2], targets[2:])[k], ones) for k in range(3)]
    errors = []
    for used in (frames[:1], frames):
        weights = LossWeights(row_mean=0.0, size=0.0)
        space = measure_code_space(generator)
        stages = (Stage(128, 40, 0.1, exact=True),)
        offset = fit_offset(generator, used, None, space, stages, weights, on_step=lambda k, image: None)
        with torch.no_grad():
            errors.append(float((generator.synthesize(codes[1:3] + offset) - targets[1:]).square().mean()))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.5, 0.75), (1.0, 1.0)])
def test_the_report_says_which_share_was_expressed(share: float, expected: float) -> None:
    aligned = clip()
    change = compare_pictures(aligned, painted_frame(aligned))
    before = crop_clip(aligned, [0], SIZE)
    report = measure_edit(change, before, before + share * change.difference)
    assert report.expressed == pytest.approx(expected, abs=1e-3) and report.spilt < 0.02
    beside = measure_edit(change, before, before + change.difference + 0.2 * (1 - change.changed))
    assert beside.spilt == pytest.approx(0.1, abs=0.01) and "beside the place" in beside.text()


@pytest.mark.parametrize(("expressed", "spilt", "told"), [(0.11, 0.028, True), (0.4, 0.012, False), (0.0, 0.0, False)])
def test_the_report_advises_strength_0_where_the_generator_does_something_else(
    expressed: float, spilt: float, told: bool
) -> None:
    report = PictureReport(expressed, expressed, 0.0, area=0.05, spilt=spilt, likeness=None)
    assert ("With strength 0" in report.text()) == told
