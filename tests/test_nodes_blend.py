"""Blend Back as a node: two people end in one video, and a missing segmentation model is named."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from test_blending_several import two_people

from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.types import AlignedClip

pytestmark = pytest.mark.comfy

WIDGETS: dict[str, Any] = {
    "mode": "replace",
    "region": "face",
    "dilate": 0.0,
    "feather": 0.08,
    "colour_match": False,
    "background": "flow",
    "mask_smoothing": 0.0,
    "keep_audio": False,
    "quality": 0,
    "picture_frames": "all frames",
    "join": "feather",
    "grain": False,
    "keep_occluders": False,
}
"""What a prompt that was saved before later inputs came holds."""


def brighter_pictures(aligned: AlignedClip) -> torch.Tensor:
    """`(T, S, S, 3)` in [0, 1]."""
    crops = crop_clip(aligned, range(aligned.clip.num_frames))
    return ((crops + 1) / 2 + 0.2).clamp(0, 1).permute(0, 2, 3, 1)


def test_the_second_face_goes_into_the_video_of_the_first(node_module: Callable[[str], ModuleType]) -> None:
    blend_back = node_module("blend").BlendBack
    frames, left, right = two_people()
    first = blend_back.execute(faces=brighter_pictures(left), aligned=left, **WIDGETS)
    alone = blend_back.execute(faces=brighter_pictures(right), aligned=right, **WIDGETS).result[1] - frames
    both = blend_back.execute(faces=brighter_pictures(right), aligned=right, onto=first.result[0], **WIDGETS)
    change = both.result[1] - frames
    assert float(change[:, 60, 65].mean()) > 0.1 and float(change[:, 60, 190].mean()) > 0.1
    torch.testing.assert_close(change[:, :, 150:], alone[:, :, 150:], atol=0.04, rtol=0)  # colours of a video file
    pictures = blend_back.execute(faces=brighter_pictures(right), aligned=right, onto=first.result[1], **WIDGETS)
    assert torch.equal(pictures.result[1][:, :, :130], first.result[1][:, :, :130])


def test_a_segmentation_model_that_is_gone_is_named(node_module: Callable[[str], ModuleType]) -> None:
    blend_back = node_module("blend").BlendBack
    _, left, _ = two_people()
    assert blend_back.fingerprint_inputs(segmenter="gone.tflite") == "gone.tflite"
    with pytest.raises(FileNotFoundError, match=r"gone\.tflite"):
        blend_back.execute(faces=brighter_pictures(left), aligned=left, segmenter="gone.tflite", **WIDGETS)
