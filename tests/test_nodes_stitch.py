"""Stitch Tuning between the sample and the render node."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from stitching_scene import stitching_scene
from tiny_generators import tiny_mobile

pytestmark = pytest.mark.comfy
NodeModule = Callable[[str], ModuleType]


def test_tuned_sample_renders_what_the_comparison_shows(node_module: NodeModule) -> None:
    generator = tiny_mobile()
    aligned, sample = stitching_scene(generator, edit=0.1)
    loaded = node_module("devices").hold_generator(generator)
    node = node_module("stitch").StitchTuning
    options = {"region": "face", "dilate": 0.0, "feather": 0.08, "keep_face": 0.01, "target": 0.0}
    with torch.inference_mode():  # as ComfyUI does it
        tuned, comparison, report = node.execute(sample, aligned, loaded, frames=2, rounds=3, **options).result
        faces = node_module("render").Render.execute(tuned, loaded, "128", 1, "all frames").result[1]
        before = node_module("render").Render.execute(sample, loaded, "128", 1, "all frames").result[1]
    assert tuned.tuning is not None and sample.tuning is None
    assert not next(iter(tuned.tuning.weights.values())).is_inference()
    assert report.startswith("2 frames, 3 rounds: the error around the face went from ")
    height, width = comparison.shape[1:3]
    tiles = comparison[0].reshape(3, height // 3, 2, width // 2, 3).transpose(1, 2)
    for row, pictures in ((1, before), (2, faces)):
        assert tiles[row, 0].shape == pictures[0].shape
        assert float((tiles[row, 0] - pictures[0]).abs().max()) < 3 / 255
        assert float((tiles[row, 1] - pictures[-1]).abs().max()) < 3 / 255
    assert float((before - faces).abs().max()) > 0.02
