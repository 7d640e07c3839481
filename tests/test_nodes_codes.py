"""The nodes around codes: saving and loading, the report, pivotal tuning, and clearing what was kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from test_pivotal import _scene
from tiny_generators import tiny_mobile

pytestmark = [pytest.mark.comfy, pytest.mark.weights]
NodeModule = Callable[[str], ModuleType]


@pytest.fixture
def folders(node_module: NodeModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's folders of models, output and user, in `tmp_path`."""
    folders = node_module("model_folders")
    paths: Any = folders.folder_paths
    monkeypatch.setattr(paths, "output_directory", str(tmp_path / "output"))
    (tmp_path / "output" / "codes").mkdir(parents=True)
    monkeypatch.setitem(
        paths.folder_names_and_paths, folders.CODES, ([str(tmp_path / "output" / "codes")], {".safetensors", ".npy"})
    )
    monkeypatch.setattr(folders, "cache_dir", lambda name: tmp_path / "user" / name)
    return tmp_path


def test_saved_codes_are_loaded_again_and_others_are_read(node_module: NodeModule, folders: Path) -> None:
    nodes, generator = node_module("code_files"), tiny_mobile()
    aligned, codes = _scene(generator)
    loaded = node_module("devices").hold_generator(generator)
    with torch.inference_mode():  # as ComfyUI does it
        (path,) = nodes.SaveCodes.execute(codes, "codes/clip").result
        file = Path(path).name
        found, picture, report = nodes.LoadCodes.execute(file, loaded, "automatic", 0, 1, 25.0, aligned).result
    assert torch.equal(found.w_plus, codes.w_plus) and not found.w_plus.is_inference()
    assert picture.shape[0] == 1 and report.startswith(f"{file}: 3 codes")
    np.save(folders / "output" / "codes" / "others.npy", codes.w_plus.numpy())
    other = nodes.LoadCodes.execute("others.npy", loaded, "automatic", 1, 2, 10.0).result[0]
    assert torch.equal(other.w_plus, codes.w_plus)
    assert other.times.tolist() == pytest.approx([0.1, 0.3, 0.5])


def test_pivotal_tuning_gives_codes_with_weights_and_a_generator_of_its_own(
    node_module: NodeModule, folders: Path
) -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator)
    loaded = node_module("devices").hold_generator(generator)
    options = {"target": 0.0, "locality": 0.0, "rate": 0.05, "depth": "64", "likeness": 0.0, "seed": 0}
    with torch.inference_mode():
        outputs = node_module("pivotal").PivotalTuning.execute(codes, aligned, loaded, keyframes=2, rounds=4, **options)
    tuned, made, picture, report = outputs.result
    assert tuned.tuning is not None and torch.equal(tuned.w_plus, codes.w_plus)
    assert "LPIPS" in report and picture.shape[0] == 1
    assert made.generator_id != loaded.generator_id
    render = node_module("render").render
    with torch.no_grad():
        own = made.ready().synthesize(codes.w_plus[:1])
        torch.testing.assert_close(own, render(loaded.ready(), codes.w_plus[:1], tuning=tuned.tuning))
    assert not any(weight.requires_grad for weight in made.ready().parameters())


def test_report_of_a_clip(node_module: NodeModule, folders: Path) -> None:
    generator = tiny_mobile()
    aligned, codes = _scene(generator)
    loaded = node_module("devices").hold_generator(generator)
    node = node_module("report").InversionReport
    with torch.inference_mode():
        picture, report, facts = node.execute(
            codes, aligned, loaded, "none", "smile", 3.0, "256", 2, 0, "ImageNet"
        ).result
    assert picture.shape[0] == 1 and picture.shape[-1] == 3
    assert [frame["frame"] for frame in json.loads(facts)["frames"]] == [0, 2]
    assert "perceptual distance: ST-LPIPS" in report or "perceptual distance: LPIPS" in report


def test_caches_are_measured_and_cleared(node_module: NodeModule, folders: Path) -> None:
    keyframes, node = folders / "user" / "keyframes", node_module("caches").ClearCaches
    keyframes.mkdir(parents=True)
    (keyframes / "a.safetensors").write_bytes(bytes(2 * 2**20))
    (keyframes / "a.part.1").write_bytes(bytes(2**20))
    (keyframes / "notes.txt").write_text("mine")
    assert node.execute("finished keyframes", False).result == ("keyframes: 3.0 MB, 3.0 MB left",)
    assert node.execute("all", True).result[0].splitlines() == [
        "keyframes: 3.0 MB, 0.0 MB left",
        "trajectories: 0.0 MB, 0.0 MB left",
        "pivotal: 0.0 MB, 0.0 MB left",
    ]
    assert [path.name for path in keyframes.iterdir()] == ["notes.txt"]
    stamp = node.fingerprint_inputs("all", True)
    assert stamp != stamp
