"""The nodes of the trajectory: fits, options of the solve, files, and widgets that keep their places."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from problems import FAMILY, aligned_clip, inverted_clip, smooth_codes
from tiny_generators import TINY_FAMILY, tiny_mobile

from dynode_pack.dynode_core.types import EditedLatent, InvertedClip
from dynode_pack.dynode_core.video import TensorClip

pytestmark = pytest.mark.comfy
NodeModule = Callable[[str], ModuleType]
CLOSED = ({"smoothing": "automatic"}, 0.0, "auto", 64, "auto", False, 0)
SAME: dict[str, Any] = {"mode": {"mode": "same"}, "playback": "same speed"} | {
    "method": "dopri5",
    "rtol": 1e-5,
    "atol": 1e-6,
    "faithful": 1.0,
}


@pytest.fixture(autouse=True)
def folders(node_module: NodeModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ComfyUI's folders in a place of their own."""
    paths = importlib.import_module("folder_paths")
    monkeypatch.setattr(paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(paths, "folder_names_and_paths", {})
    monkeypatch.setattr(paths, "filename_list_cache", {})
    for kind in ("output", "temp", "user"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(paths, f"{kind}_directory", str(tmp_path / kind))
    node_module("model_folders").register()
    return tmp_path


@pytest.fixture(scope="module")
def clip() -> InvertedClip:
    return inverted_clip(smooth_codes(9, rows=2, channels=8, axes=3), np.arange(9) / 25)


def fitted(node_module: NodeModule, clip: InvertedClip, **options: Any) -> Any:
    return node_module("trajectory").FitTrajectory.execute(clip, *CLOSED, **options).result


def latent(clip: InvertedClip, size: float, name: str) -> EditedLatent:
    return EditedLatent(clip.w_plus[0] + size, clip.w_plus[0], (name,), FAMILY)


def test_training_fits_show_their_losses_and_are_kept(
    node_module: NodeModule, clip: InvertedClip, folders: Path
) -> None:
    fit = {"fit": "gradient (paper)", "steps": 3, "learning_rate": 0.01, "batch": 4, "hidden": 8, "use_time": True}
    trajectory, plot, report = fitted(node_module, clip, fit=fit | {"adjoint": False})
    assert plot.shape[0] == 1 and "loss at first / last / lowest:" in report
    assert "resumed at: 0" in report
    assert len(list(folders.rglob("trajectories/*.safetensors"))) == 1
    assert "resumed at: 3" in fitted(node_module, clip, fit=fit)[2]
    with pytest.raises(ValueError, match="need the generator"):
        fitted(node_module, clip, fit=fit | {"image_weight": 1.0})


def test_a_saved_trajectory_is_listed_loaded_and_solves_the_same(
    node_module: NodeModule, clip: InvertedClip, folders: Path
) -> None:
    files, solve = node_module("trajectory_files"), node_module("solve").SolveAtTimes
    trajectory = fitted(node_module, clip)[0]
    first, second = (files.SaveTrajectory.execute(trajectory, "trajectories/clip").result[0] for _ in range(2))
    assert first != second and Path(first).parent == folders / "output" / "trajectories"
    listed = node_module("model_folders").files("latent_trajectories")
    assert listed == [Path(first).name, Path(second).name]
    loaded, plot, report = files.LoadTrajectory.execute(listed[0]).result
    assert plot.shape[0] == 1 and "keyframes: 9" in report
    codes = [solve.execute(one, **SAME).result[0][0].w_plus[:] for one in (trajectory, loaded)]
    assert torch.equal(*codes)
    with pytest.raises(FileNotFoundError, match="latent_trajectories"):
        files.LoadTrajectory.execute("gone.safetensors")
    with pytest.raises(Exception, match="outside"):
        files.SaveTrajectory.execute(trajectory, "../elsewhere")


def test_several_latents_give_a_list_of_samples(node_module: NodeModule, clip: InvertedClip) -> None:
    solve, trajectory = node_module("solve").SolveAtTimes, fitted(node_module, clip)[0]
    assert solve.GET_NODE_INFO_V1()["output_is_list"] == [True, False]
    edits = {"latent": latent(clip, 0.1, "smile=1"), "latent_3": latent(clip, -0.1, "smile=-1")}
    samples, report = solve.execute(trajectory, **SAME, **edits).result
    assert [sample.edits for sample in samples] == [("smile=1",), ("smile=-1",)]
    assert "edits: smile=1\n" in report and report.endswith("edits: smile=-1")
    assert len(solve.execute(trajectory, **SAME).result[0]) == 1


def test_later_edits_variation_and_extrapolation_reach_the_solver(node_module: NodeModule, clip: InvertedClip) -> None:
    solve, trajectory = node_module("solve").SolveAtTimes, fitted(node_module, clip)[0]
    later = solve.execute(trajectory, **SAME, later=latent(clip, 0.5, "age=1"), later_s=0.2).result[0][0]
    change = (later.w_plus[:] - later.base_w_plus[:]).mean(dim=(1, 2))
    assert abs(float(change[0])) < 1e-3 and float(change[-1]) == pytest.approx(0.5, abs=0.01)
    swaying = solve.execute(trajectory, **SAME, variation=0.5, variation_length_s=0.1).result[0][0]
    assert not torch.allclose(swaying.w_plus[:], swaying.base_w_plus[:], atol=1e-2)
    beyond = SAME | {"mode": {"mode": "list", "times": "0, 1"}}
    samples, report = solve.execute(trajectory, **beyond, extrapolate_s=0.1).result
    assert samples[0].times[-1] == 1.0 and report.startswith("WARNING: 1 of 2 times lie outside the clip")
    assert solve.execute(trajectory, **beyond).result[0][0].times[-1] == pytest.approx(8 / 25)


def test_a_curve_runs_there_and_back(node_module: NodeModule, clip: InvertedClip) -> None:
    solve, trajectory = node_module("solve").SolveAtTimes, fitted(node_module, clip)[0]
    mode = {"mode": "curve", "curve": "ping-pong", "frames_per_frame": 1.0, "bend": 1.0, "repeats": 1}
    sample = solve.execute(trajectory, **SAME | {"mode": mode | {"ramp_speed": 4.0}}).result[0][0]
    assert len(sample.times) == 17 and sample.times[8] == pytest.approx(8 / 25) and sample.times[-1] == 0.0


def test_a_clip_is_compared_as_codes_and_as_pictures(node_module: NodeModule, folders: Path) -> None:
    generator = tiny_mobile()
    codes = 0.3 * smooth_codes(9, rows=generator.num_ws, channels=generator.w_dim, axes=3)
    clip = dataclasses.replace(inverted_clip(codes, np.arange(9) / 25), family=TINY_FAMILY)
    compare = node_module("compare").CompareTrajectory
    loaded = node_module("devices").hold_generator(generator)
    asked = (clip, 2, False, 0, 2, "128", {"fit": "closed form"})
    edit = EditedLatent(clip.w_plus[0] + 0.1, clip.w_plus[0], ("smile=1",), TINY_FAMILY)
    picture, report, text = compare.execute(*asked, latent=edit, generator=loaded).result
    assert picture.shape[0] == 1 and picture.shape[3] == 3 and float(picture.max()) <= 1
    facts = json.loads(text)
    assert facts["kept"] == [0, 2, 4, 6, 8] and facts["held_out"] == [1, 3, 5, 7]
    assert set(facts["methods"]["linear morphing"]) > {"held_out", "mse_held_out", "ssim_observed"}
    assert "4 of 9 keyframes were held out" in report and "Edited: smile=1" in report
    plain = compare.execute(*asked)
    assert "mse_held_out" not in json.loads(plain.result[2])["methods"]["trajectory"]
    assert plain.ui.as_dict()["images"]
    trained = {"fit": "gradient (paper)", "steps": 2, "learning_rate": 0.01, "batch": 4, "hidden": 8}
    assert json.loads(compare.execute(*asked[:6], trained).result[2])["methods"]["trajectory"]["held_out"] > 0
    whole = aligned_clip(TensorClip(torch.zeros(9, 96, 96, 3), 25))
    larger = compare.execute(*asked[:5], "512", asked[6], generator=loaded, aligned=whole)
    assert json.loads(larger.result[2])["pictures_compared_with"] == "the clip's own frames"
    with pytest.raises(ValueError, match="family"):
        compare.execute(dataclasses.replace(clip, family="another"), *asked[1:], generator=loaded)


def test_a_comparison_stops_in_its_fit_when_cancelled(node_module: NodeModule, clip: InvertedClip) -> None:
    management = importlib.import_module("comfy.model_management")
    fit = node_module("compare")._fitter({"fit": "closed form"}, 0, None)
    management.interrupt_current_processing(True)
    try:
        with pytest.raises(management.InterruptProcessingException):
            fit(clip)
    finally:
        management.interrupt_current_processing(False)
    assert len(fit(clip).times) == 9


def test_a_comparison_refuses_what_does_not_belong_together_before_it_fits(
    node_module: NodeModule, clip: InvertedClip
) -> None:
    short = aligned_clip(TensorClip(torch.zeros(5, 32, 32, 3), 25))
    unknown = {"fit": "never reached"}
    with pytest.raises(ValueError, match="the aligned clip has 5 frames"):
        node_module("compare").CompareTrajectory.execute(clip, 2, False, 0, 2, "128", unknown, aligned=short)


@pytest.mark.parametrize(
    ("module", "node", "required"),
    [
        (
            "trajectory",
            "FitTrajectory",
            ["codes", "smoothing", "state_dependence", "cuts", "rank", "reference", "check_held_out", "seed"],
        ),
        ("solve", "SolveAtTimes", ["trajectory", "mode", "playback", "method", "rtol", "atol", "faithful"]),
    ],
)
def test_prompts_of_earlier_versions_lack_nothing(
    node_module: NodeModule, module: str, node: str, required: list[str]
) -> None:
    info = getattr(node_module(module), node).GET_NODE_INFO_V1()
    assert list(info["input"]["required"]) == required


@pytest.mark.parametrize("limit", [0.5, -1.0, 1000.0])
def test_an_edit_limit_that_makes_no_sense_is_refused_before_anything_runs(
    node_module: NodeModule, limit: float
) -> None:
    solve = node_module("solve").SolveAtTimes
    mode = {"mode": ("same", "mode")}
    with pytest.raises(ValueError, match="edit_limit should be 0"):
        solve.check_lazy_status(mode, trajectory=None, edit_limit=limit)
    for good in (0.0, 1.0, 1.2):
        assert solve.check_lazy_status(mode, trajectory=None, edit_limit=good) == ["trajectory"]
