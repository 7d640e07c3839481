"""How the times of a sample become the times and the sound of a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from test_blending_several import two_people

from dynode_pack.dynode_core.blending import BlendSettings
from dynode_pack.dynode_core.export import export_video, plan_playback
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.layout import masks_of_size, network_to_pictures
from dynode_pack.dynode_core.rendering import PictureFaces

NTSC = Fraction(30000, 1001)


def test_own_frames_play_at_their_own_speed() -> None:
    plan = plan_playback(np.arange(100) / float(NTSC), NTSC)
    assert (plan.speed, plan.frame_times, plan.in_sync) == (1.0, None, True)


def test_slow_motion_slows_the_sound_by_the_same_factor() -> None:
    plan = plan_playback(np.arange(397) / (4 * 25.0), Fraction(25))
    assert plan.speed == pytest.approx(0.25)
    assert plan.frame_times is None
    assert plan.in_sync


def test_more_frames_in_the_same_time_leave_the_sound_alone() -> None:
    assert plan_playback(np.arange(200) / 50.0, Fraction(50)).speed == 1.0


def test_uneven_frame_times_are_kept_exactly() -> None:
    times = np.cumsum([0.5, 0.03, 0.05, 0.03, 0.05, 0.03, 0.05])
    plan = plan_playback(times, Fraction(25))
    assert plan.speed == 1.0
    assert plan.frame_times is not None
    np.testing.assert_allclose(plan.frame_times, times - 0.5)


def test_sound_that_cannot_follow_is_left_out() -> None:
    assert not plan_playback(np.array([0.0, 0.1, 1.5, 1.6, 4.0]), Fraction(25)).in_sync
    assert not plan_playback(np.array([0.0, 0.0, 0.0]), Fraction(25)).in_sync


def test_one_frame_plays_at_its_own_speed() -> None:
    assert plan_playback(np.array([1.25]), Fraction(25)).speed == 1.0


def test_masks_of_any_size_and_pictures_with_alpha_are_taken(tmp_path: Path) -> None:
    """As other nodes hand them out: a painted mask has the size of the canvas, a cut-out face has four channels."""
    frames, left, _ = two_people()
    pictures = network_to_pictures(crop_clip(left, range(len(frames))) + 0.4)
    faces = PictureFaces(torch.cat([pictures, pictures[..., :1]], dim=3).half(), left.clip.frame_times, left.clip.fps)
    # no matching: it looks at what lies inside the mask
    settings = BlendSettings(mode="replace", region="whole crop", colour_match=False, detail_match=False)
    mask = torch.zeros(1, 1, 60, 130)  # half the size of the frames
    mask[..., :30, :] = 1

    def change(masks: torch.Tensor | None) -> torch.Tensor:
        return export_video(tmp_path / "a.mp4", left, faces, settings, masks=masks, keep=4).kept - frames

    whole, upper = change(None), change(mask)
    assert float(whole[:, 40:80, 65].mean()) > 0.1
    torch.testing.assert_close(upper[:, :54], whole[:, :54], atol=2e-3, rtol=0)
    assert float(upper[:, 66:].abs().max()) == 0
    assert torch.equal(change(mask[0, 0]), upper)
    with pytest.raises(ValueError, match=r"\(n, H, W\)"):
        masks_of_size(torch.zeros(1, 4, 4, 3), 8, 8)
