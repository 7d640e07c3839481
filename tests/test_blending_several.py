"""Two faces of one clip: the second goes into frames that already show the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_blending_clip import Faces, aligned_clip, blended, own_faces, textured

from dynode_pack.dynode_core.blending import BlendSettings
from dynode_pack.dynode_core.blending.several import on_frames_of
from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.video import FileClip, VideoWriter

SETTINGS = BlendSettings(mode="residual")


def brighter(aligned) -> Faces:
    base = own_faces(aligned)
    return Faces(base.edited + 0.4, base.edited, base.times)


def two_people() -> tuple:
    frames = textured(4, 120, 260) * 0.5 + 0.2
    left = aligned_clip(frames, centres=np.tile([[65.0, 60]], (4, 1)))
    right = aligned_clip(frames, centres=np.tile([[190.0, 60]], (4, 1)))
    return frames, left, right


def test_both_faces_end_in_one_clip() -> None:
    frames, left, right = two_people()
    alone = [blended(aligned, brighter(aligned), SETTINGS) for aligned in (left, right)]
    both = blended(on_frames_of(right, TensorClip(alone[0], 25)), brighter(right), SETTINGS)
    torch.testing.assert_close(both - frames, (alone[0] - frames) + (alone[1] - frames), atol=1e-6, rtol=0)
    assert float((both - frames)[:, 60, 65].min()) > 0.1 and float((both - frames)[:, 60, 190].min()) > 0.1


def test_frames_of_a_file_count_as_those_of_the_source(tmp_path: Path) -> None:
    """A file rounds times and sizes; the frames of the file are still used as they are, without flow between them."""
    frames, _, _ = two_people()
    frames = frames[:, :119]
    odd = aligned_clip(frames, centres=np.tile([[190.0, 60]], (4, 1)))
    times = odd.clip.frame_times
    with VideoWriter(tmp_path / "a.mp4", 25, frame_times=times + np.array([0, 3e-5, -2e-5, 4e-5])) as writer:
        writer.write(frames)
    clip = FileClip(tmp_path / "a.mp4")
    assert (clip.height, clip.width) == (120, 260)
    onto = on_frames_of(odd, clip)
    np.testing.assert_array_equal(onto.clip.frame_times, times)
    assert (onto.clip.path, onto.clip.pixel_aspect, onto.clip.media_start_s) == (clip.path, clip.pixel_aspect, 0)
    faces = own_faces(odd)
    assert torch.equal(blended(onto, faces, SETTINGS), clip.read(range(4)))


@pytest.mark.parametrize(
    ("frames", "fps", "what"),
    [(textured(3, 120, 260), 25, "4 of 260 x 120"), (textured(4, 130, 260), 25, "260 x 130"), (None, 5, "0.48 s")],
)
def test_other_frames_are_refused(frames: torch.Tensor | None, fps: int, what: str) -> None:
    own, left, _ = two_people()
    with pytest.raises(ValueError, match=what):
        on_frames_of(left, TensorClip(own if frames is None else frames, fps))
