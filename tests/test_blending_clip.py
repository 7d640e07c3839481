"""blend_clip: what must not change does not, what must come back does."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.blending import BlendSettings, blend_clip
from dynode_pack.dynode_core.blending.background import place_of
from dynode_pack.dynode_core.blending.region import RegionFinder, soft_outline
from dynode_pack.dynode_core.blending.settings import MODES
from dynode_pack.dynode_core.faces.align import align_fixed
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.faces.masks import face_mask
from dynode_pack.dynode_core.types import AlignedClip, FaceTrack
from dynode_pack.dynode_core.video import TensorClip

HEIGHT, WIDTH, SIDE = 120, 160, 64


@dataclass
class Faces:
    """Given crops, with or without their unedited version."""

    edited: torch.Tensor
    base: torch.Tensor | None
    times: np.ndarray
    fps: Fraction = Fraction(25)

    @property
    def size(self) -> int:
        return self.edited.shape[-1]

    @property
    def num_frames(self) -> int:
        return len(self.edited)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.edited[start:stop]

    def read_base(self, start: int, stop: int) -> torch.Tensor | None:
        return None if self.base is None else self.base[start:stop]


def textured(num_frames: int, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """Smooth random pictures in [0, 1], each different."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(num_frames, 3, height // 20, width // 20, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)


def face_landmarks(centre: tuple[float, float], radius: float) -> np.ndarray:
    """`(68, 2)` points of a plausible face: jaw, brows, and the rest inside."""
    x, y = centre
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([x + radius * 0.8 * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    across = np.linspace(-0.6, 0.6, 10)[:, None]
    brows = np.concatenate([x + radius * across, np.full((10, 1), y - radius * 0.25)], axis=1)
    inside = np.tile([[x, y + 0.2 * radius]], (41, 1))
    return np.concatenate([jaw, brows, inside])


def aligned_clip(frames: torch.Tensor, *, centres: np.ndarray | None = None, angle: float = 0.2) -> AlignedClip:
    """A clip with a turned quad of 80 px around each centre and a face in it."""
    num_frames = len(frames)
    if centres is None:
        centres = np.tile([[75.3, 60.7]], (num_frames, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-40, -40], [-40, 40], [40, 40], [40, -40]]) @ turn.T
    landmarks = np.stack([face_landmarks((x, y), 20) for x, y in centres])
    track = FaceTrack(
        landmarks=landmarks,
        boxes=np.tile([[40.0, 30, 110, 95]], (num_frames, 1)),
        scores=np.ones(num_frames, np.float32),
        detected=np.ones(num_frames, bool),
    )
    return AlignedClip(TensorClip(frames, 25), corners + centres[:, None], track, crop_size=SIDE)


def blended(aligned: AlignedClip, faces: Faces, settings: BlendSettings, **options: object) -> torch.Tensor:
    chunks = list(blend_clip(aligned, faces, settings, **options))
    starts = np.cumsum([0] + [len(frames) for _, frames in chunks[:-1]])
    assert [start for start, _ in chunks] == starts.tolist()
    return torch.cat([frames for _, frames in chunks])


def own_faces(aligned: AlignedClip, size: int = SIDE) -> Faces:
    """The crops of the clip itself as edited and unedited faces."""
    crops = crop_clip(aligned, range(aligned.clip.num_frames), size)
    return Faces(crops, crops, aligned.clip.frame_times)


def union_masks(aligned: AlignedClip, settings: BlendSettings) -> torch.Tensor:
    """`(T, H, W)` masks over the whole frame."""
    finder = RegionFinder(aligned, settings, None, aligned.clip.num_frames)
    masks = torch.zeros(aligned.clip.num_frames, HEIGHT, WIDTH)
    for i, time_s in enumerate(aligned.clip.frame_times):
        region = finder.at(i, time_s)
        assert region is not None
        masks[i][region.slices()] = region.mask
    return masks


@pytest.mark.parametrize("mode", ["residual", "adaptive"])
@pytest.mark.parametrize("region", ["face", "inner face", "head and neck", "whole crop"])
def test_an_unchanged_face_gives_exactly_the_source(mode: str, region: str) -> None:
    frames = textured(5)
    aligned = aligned_clip(frames)
    rendered = torch.rand(5, 3, SIDE, SIDE) * 2.4 - 1.2  # as far from the source as can be
    faces = Faces(rendered, rendered, aligned.clip.frame_times)
    assert torch.equal(blended(aligned, faces, BlendSettings(mode=mode, region=region)), frames)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("colour_match", [False, True])
def test_pixels_outside_the_mask_keep_their_exact_values(mode: str, colour_match: bool) -> None:
    frames = textured(4)
    aligned = aligned_clip(frames)
    settings = BlendSettings(mode=mode, colour_match=colour_match)
    faces = Faces(torch.rand(4, 3, SIDE, SIDE) * 2 - 1, torch.rand(4, 3, SIDE, SIDE) * 2 - 1, aligned.clip.frame_times)
    result = blended(aligned, faces, settings)
    outside = union_masks(aligned, settings) == 0
    assert torch.equal(result[outside], frames[outside])
    inside = union_masks(aligned, settings) > 0.9
    assert 0.03 < float(inside.float().mean()) < 0.5
    assert float((result - frames)[inside].abs().mean()) > 0.05
    assert float(result.min()) >= 0 and float(result.max()) <= 1


@pytest.mark.parametrize("size", [64, 96, 200])
def test_a_crop_put_back_is_the_frame_up_to_interpolation(size: int) -> None:
    frames = textured(3)
    aligned = aligned_clip(frames)
    settings = BlendSettings(mode="replace", colour_match=False, region="whole crop")
    result = blended(aligned, own_faces(aligned, size), settings)
    assert float((result - frames).abs().mean()) < 2e-3
    assert float((result - frames).abs().max()) < 0.06


def test_a_change_of_the_crop_arrives_at_full_strength_inside() -> None:
    frames = textured(2) * 0.5 + 0.2
    aligned = aligned_clip(frames)
    faces = own_faces(aligned)
    faces.edited = faces.edited + torch.tensor([0.2, 0.0, -0.1])[:, None, None]
    for mode in MODES:
        settings = BlendSettings(mode=mode)
        change = blended(aligned, faces, settings) - frames
        full = union_masks(aligned, settings) == 1
        expected = torch.tensor([0.1, 0.0, -0.05])
        np.testing.assert_allclose(change[full].mean(dim=0), expected, atol=0.004)


def test_colour_match_takes_the_light_of_the_source_and_leaves_the_edit() -> None:
    frames = textured(2) * 0.3 + 0.4
    aligned = aligned_clip(frames)
    own = own_faces(aligned)
    darker = own.edited - 0.2  # a reconstruction that missed the light
    with_edit = darker.clone()
    with_edit[:, :, 30:36, 30:36] += 0.3
    faces = Faces(with_edit, darker, own.times)
    matched = blended(aligned, faces, BlendSettings(mode="replace"))
    plain = blended(aligned, faces, BlendSettings(mode="replace", colour_match=False))
    own.edited = own.edited.clone()
    own.edited[:, :, 30:36, 30:36] += 0.3
    wanted = blended(aligned, own, BlendSettings(mode="replace", colour_match=False))
    inside = union_masks(aligned, BlendSettings()) == 1
    assert float((matched - wanted)[inside].abs().mean()) < 0.006
    assert float((plain - wanted)[inside].abs().mean()) > 0.08


def test_the_edge_of_the_mask_is_no_step() -> None:
    """On a smooth picture the second difference across the edge stays near that of the ramp."""
    y, x = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    frames = (0.3 + 0.3 * x + 0.1 * y)[None, ..., None].expand(2, -1, -1, 3).contiguous()
    aligned = aligned_clip(frames)
    faces = own_faces(aligned)
    faces.edited = faces.edited + 0.3
    result = blended(aligned, faces, BlendSettings(feather=0.4))
    steps = torch.maximum(result.diff(dim=1).abs().amax(), result.diff(dim=2).abs().amax())
    assert float(steps) < 0.15 * 1.9 / (0.4 * 25) + 0.01  # a smoothstep over the feather, plus the picture's own slope


def test_pictures_without_a_base_are_replaced_with_a_message(caplog: pytest.LogCaptureFixture) -> None:
    frames = textured(6)
    aligned = aligned_clip(frames)
    faces = own_faces(aligned)
    faces.base = None
    with caplog.at_level(logging.WARNING):
        result = blended(aligned, faces, BlendSettings(mode="residual"))
    assert caplog.text.count('blended with mode "replace"') == 1
    assert torch.equal(result, blended(aligned, faces, BlendSettings(mode="replace")))
    assert float((result - frames).abs().mean()) < 2e-3


def test_masks_limit_where_the_face_goes() -> None:
    frames = textured(3)
    aligned = aligned_clip(frames)
    faces = own_faces(aligned)
    faces.edited = -faces.edited
    left = torch.zeros(1, HEIGHT, WIDTH)
    left[:, :, :75] = 1
    result = blended(aligned, faces, BlendSettings(), masks=left)
    assert torch.equal(result[:, :, 75:], frames[:, :, 75:])
    assert not torch.equal(result[:, :, :75], frames[:, :, :75])
    per_frame = left.repeat(3, 1, 1)
    per_frame[1] = 0
    result = blended(aligned, faces, BlendSettings(), masks=per_frame)
    assert torch.equal(result[1], frames[1]) and not torch.equal(result[0], frames[0])
    assert torch.equal(per_frame[1], torch.zeros(HEIGHT, WIDTH))


def test_masks_move_between_source_frames() -> None:
    aligned = aligned_clip(textured(3))
    masks = torch.zeros(3, HEIGHT, WIDTH)
    masks[1] = 1
    finder = RegionFinder(aligned, BlendSettings(region="whole crop"), masks, 7)
    region = finder.at(0, 0.03)
    assert region is not None
    assert float(region.mask.max()) == pytest.approx(0.75)
    assert finder.at(0, 0.0) is None
    with pytest.raises(ValueError, match="There are 2 masks"):
        RegionFinder(aligned, BlendSettings(), masks[:2], 7)
    with pytest.raises(ValueError, match=r"masks should have shape"):
        RegionFinder(aligned, BlendSettings(), masks[:, :50], 7)


def test_times_between_frames_move_quad_and_outline_on_a_line() -> None:
    centres = np.array([[60.0, 50], [80, 60], [84, 70]])
    aligned = aligned_clip(textured(3), centres=centres)
    finder = RegionFinder(aligned, BlendSettings(mask_smoothing=0, region="face"), None, 9)
    regions = [finder.at(0, time_s) for time_s in (0.0, 0.01, 0.04)]
    middles = []
    for region in regions:
        assert region is not None
        total = region.mask.sum()
        x0, y0, x1, y1 = region.box
        x = (region.mask.sum(dim=0) * (torch.arange(x0, x1) + 0.5)).sum() / total
        y = (region.mask.sum(dim=1) * (torch.arange(y0, y1) + 0.5)).sum() / total
        middles.append((float(x), float(y)))
    moved = np.array(middles) - middles[0]
    np.testing.assert_allclose(moved, [[0, 0], [5, 2.5], [20, 10]], atol=0.1)


def test_exact_times_use_exact_frames_and_others_a_moved_background() -> None:
    frames = textured(4)
    aligned = aligned_clip(frames)
    times = np.array([0.0, 0.013, 0.04, 0.0799999999, 0.5, -1.0])
    faces = Faces(torch.zeros(6, 3, SIDE, SIDE), torch.zeros(6, 3, SIDE, SIDE), times)
    result = blended(aligned, faces, BlendSettings())
    for place, index in ((0, 0), (2, 1), (3, 2), (4, 3), (5, 0)):
        assert torch.equal(result[place], frames[index])
    nearest = blended(aligned, faces, BlendSettings(background="nearest"))
    assert torch.equal(nearest[1], frames[0])


def test_place_of_times() -> None:
    times = np.array([0, 0.1, 0.3])
    assert place_of(times, 0.1 + 5e-7) == (1, 0.0)
    assert place_of(times, 0.1 - 5e-7) == (1, 0.0)
    assert place_of(times, 9.0) == (2, 0.0)
    assert place_of(times, -9.0) == (0, 0.0)
    index, fraction = place_of(times, 0.15)
    assert index == 1 and fraction == pytest.approx(0.25)


def test_a_wide_ramp_is_drawn_small_and_is_the_same_mask() -> None:
    landmarks = face_landmarks((260.3, 240.8), 170)
    settings = BlendSettings(feather=0.15, dilate=0.05)
    full = face_mask(landmarks[None], 481, 517, region=settings.region, dilate=0.05, feather=0.15)[0]
    drawn = soft_outline(landmarks, 481, 517, settings)
    assert drawn.shape == full.shape
    assert float((drawn - full).abs().max()) < 0.03


def test_trembling_landmarks_do_not_make_the_mask_flicker() -> None:
    rng = np.random.default_rng(0)
    aligned = aligned_clip(textured(12))
    landmarks = aligned.track.landmarks + rng.normal(0, 1.0, aligned.track.landmarks.shape)
    trembling = replace(aligned, track=replace(aligned.track, landmarks=landmarks))

    def flicker(sigma: float) -> float:
        masks = union_masks(trembling, BlendSettings(mask_smoothing=sigma))
        return float(masks.diff(dim=0).abs().mean())

    assert flicker(3.0) < 0.35 * flicker(0.0)


def test_a_face_outside_the_frame_leaves_it_alone() -> None:
    frames = textured(2)
    aligned = aligned_clip(frames, centres=np.array([[900.0, 900], [-500, 40]]))
    faces = Faces(torch.rand(2, 3, SIDE, SIDE), torch.rand(2, 3, SIDE, SIDE), aligned.clip.frame_times)
    assert torch.equal(blended(aligned, faces, BlendSettings()), frames)


def test_a_face_at_the_border_of_the_frame_is_blended() -> None:
    frames = textured(2)
    aligned = aligned_clip(frames, centres=np.array([[10.0, 100], [155, 5]]))
    for mode in MODES:
        faces = Faces(torch.ones(2, 3, SIDE, SIDE), -torch.ones(2, 3, SIDE, SIDE), aligned.clip.frame_times)
        result = blended(aligned, faces, BlendSettings(mode=mode))
        assert torch.isfinite(result).all() and not torch.equal(result, frames)


def test_nothing_handed_in_changes() -> None:
    frames = textured(3)
    aligned = aligned_clip(frames)
    faces = Faces(torch.rand(3, 3, SIDE, SIDE), torch.rand(3, 3, SIDE, SIDE), aligned.clip.frame_times)
    before = frames.clone(), faces.edited.clone(), faces.base.clone(), aligned.quads.copy()
    blended(aligned, faces, BlendSettings(mode="replace"))
    after = frames, faces.edited, faces.base, aligned.quads
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(before, after, strict=True))


def test_progress_is_told_of_every_frame_and_can_cancel() -> None:
    aligned = aligned_clip(textured(6))
    told: list[tuple[int, int, tuple[int, ...]]] = []

    def listen(done: int, total: int, preview: np.ndarray | None = None) -> None:
        assert preview is not None and preview.dtype == np.uint8
        told.append((done, total, preview.shape))
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(blend_clip(aligned, own_faces(aligned), progress=listen))
    assert told == [(i, 6, (HEIGHT, WIDTH, 3)) for i in range(1, 6)]


def test_bad_input_is_refused_before_the_first_frame() -> None:
    aligned = aligned_clip(textured(2))
    empty = Faces(torch.zeros(0, 3, SIDE, SIDE), None, np.zeros(0))
    with pytest.raises(ValueError, match="no faces"):
        blend_clip(aligned, empty)
    with pytest.raises(ValueError, match="times have shape"):
        blend_clip(aligned, Faces(torch.zeros(2, 3, SIDE, SIDE), None, np.zeros(3)))
    with pytest.raises(ValueError, match="NaN"):
        blend_clip(aligned, Faces(torch.zeros(2, 3, SIDE, SIDE), None, np.array([0, np.nan])))


@pytest.mark.parametrize(
    "wrong", [{"mode": "x"}, {"region": "x"}, {"background": "x"}, {"feather": -1}, {"dilate": 2}, {"chunk": 0}]
)
def test_settings_say_what_is_wrong(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} should"):
        BlendSettings(**wrong)


@pytest.mark.parametrize("mode", MODES)
def test_frames_without_the_face_stay_exactly_as_they_are(mode: str) -> None:
    frames = textured(8)
    aligned = aligned_clip(frames)
    away = np.isin(np.arange(8), [3, 4])
    aligned = replace(aligned, track=replace(aligned.track, present=~away))
    edited = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    faces = Faces(edited, crop_clip(aligned, range(8)), aligned.clip.frame_times)
    result = blended(aligned, faces, BlendSettings(mode=mode))
    changed = (result != frames).flatten(1).any(dim=1).numpy()
    np.testing.assert_array_equal(changed, ~away)
    between = Faces(edited[:2], None, np.array([2.5, 4.5]) / 25)
    finder = RegionFinder(aligned, BlendSettings(), None, 2)
    assert finder.at(0, between.times[0]) is None and finder.at(1, between.times[1]) is None


def test_nothing_is_mixed_over_a_cut() -> None:
    frames = torch.cat([textured(4), 1 - textured(4)])
    centres = np.concatenate([np.tile([[40.0, 60]], (4, 1)), np.tile([[100.0, 60]], (4, 1))])
    aligned = aligned_clip(frames, centres=centres)
    whole = RegionFinder(aligned, BlendSettings(), None, 1)
    aligned = replace(aligned, track=replace(aligned.track, segments=np.array([(0, 4), (4, 8)])))
    finder = RegionFinder(aligned, BlendSettings(), None, 1)
    at = [finder.at(0, t / 25) for t in (3, 3.4, 3.6, 4)]
    assert all(region is not None for region in at)
    np.testing.assert_array_equal(at[0].quad, at[1].quad)
    np.testing.assert_array_equal(at[2].quad, at[3].quad)
    assert at[0].quad.mean(axis=0)[0] == pytest.approx(40) and at[3].quad.mean(axis=0)[0] == pytest.approx(100)
    assert whole.at(0, 3.5 / 25).quad.mean(axis=0)[0] == pytest.approx(70)
    same = Faces(crop_clip(aligned, [3, 4]), crop_clip(aligned, [3, 4]), np.array([3.4, 3.6]) / 25)
    torch.testing.assert_close(blended(aligned, same, BlendSettings(mode="residual")), frames[[3, 4]], rtol=0, atol=0)


def test_the_outline_of_a_shot_knows_nothing_of_the_next_one() -> None:
    frames = textured(6)
    aligned = aligned_clip(frames)
    landmarks = aligned.track.landmarks.copy()
    landmarks[3:] += 15  # another expression, as it were, in the same quad
    aligned = replace(aligned, track=replace(aligned.track, landmarks=landmarks, segments=np.array([(0, 3), (3, 6)])))
    alone = replace(aligned, track=replace(aligned.track, landmarks=np.repeat(landmarks[:1], 6, axis=0)))
    settings = BlendSettings(mask_smoothing=5.0)
    ours, expected = (RegionFinder(a, settings, None, 1).at(0, 2 / 25) for a in (aligned, alone))
    assert ours is not None and expected is not None and ours.box == expected.box
    torch.testing.assert_close(ours.mask, expected.mask)


def test_a_crop_without_landmarks_goes_back_whole() -> None:
    frames = textured(2)
    aligned = align_fixed(TensorClip(frames, 25), crop_size=SIDE)
    faces = Faces(-crop_clip(aligned, [0, 1]), None, aligned.clip.frame_times)
    default = blended(aligned, faces, BlendSettings(mode="replace", colour_match=False))
    whole = blended(aligned, faces, BlendSettings(mode="replace", colour_match=False, region="whole crop"))
    assert (default != frames).any()
    torch.testing.assert_close(default, whole, rtol=0, atol=0)
