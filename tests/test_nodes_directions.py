"""Finding, previewing, saving and applying directions, and edits over time, between the nodes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_generators import tiny_stylegan2

from dynode_pack.dynode_core.types import EditDirection, TrajectorySample

pytestmark = pytest.mark.comfy
NodeModule = Callable[[str], ModuleType]
BIRDS = "stylegan2-bird-64x10"
OWN = "the direction's own unit"


@pytest.fixture(scope="module")
def loaded(node_module: NodeModule) -> Any:
    return node_module("devices").hold_generator(tiny_stylegan2(64, BIRDS))


@pytest.fixture(scope="module")
def latents(node_module: NodeModule, loaded: Any) -> list[Any]:
    return node_module("latents").SampleLatents.execute(loaded, 5, 12, 0.7, "full", 0, 0).result[0]


@pytest.fixture(scope="module")
def found(node_module: NodeModule, loaded: Any) -> tuple[EditDirection, ...]:
    module = node_module("find_directions")
    return module.FindDirections.execute(loaded, module.SEFA, 3, "all").result[0]


def apply(node_module: NodeModule, latent: Any, loaded: Any, strength: float = 2.0, **others: Any) -> Any:
    return node_module("edit").EditFirstLatent.execute(latent, loaded, "none", strength, "all", 1.0, **others).result


def test_a_found_direction_is_previewed_applied_and_kept(
    node_module: NodeModule, loaded: Any, latents: list[Any], found: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    preview = node_module("preview_directions").PreviewDirections
    (picture,) = preview.execute(latents[0], loaded, "none", "-2,0,2", OWN, "all", 64, found).result
    assert picture.shape[0] == 1 and picture.shape[1] > 3 * 64 and float(picture.std()) > 0.05
    edited, _, report = apply(node_module, latents[0], loaded, directions=found, which=1)
    torch.testing.assert_close(edited.w_plus_0, latents[0].w_plus_0 + 2 * found[1].direction)
    assert "edits: sefa 1=2" in report and "standard deviations" in report
    folders = node_module("model_folders")
    monkeypatch.setattr(folders, "folders", lambda name: (tmp_path,))
    save = node_module("find_directions").SaveDirections
    (path,) = save.execute(found, -1, "../birds").result
    assert Path(path) == tmp_path / "birds.safetensors"
    assert Path(save.execute(found, 0, "birds").result[0]).name == "birds 2.safetensors"
    assert "birds.safetensors[sefa 2]" in node_module("edit").direction_names()
    by_name = node_module("edit").EditFirstLatent.execute(
        latents[0], loaded, "birds.safetensors[sefa 1]", 2.0, "all", 1.0
    )
    assert torch.equal(by_name.result[0].w_plus_0, edited.w_plus_0)


def test_an_edit_out_of_range_is_reported(
    node_module: NodeModule, loaded: Any, latents: list[Any], found: Any, caplog: Any
) -> None:
    _, _, report = apply(node_module, latents[0], loaded, 100.0, directions=found)
    assert report.startswith("WARNING: this edit takes the code out of the range")
    assert "Use less strength" in caplog.text


def test_keep_takes_connected_directions_by_name(
    node_module: NodeModule, loaded: Any, latents: list[Any], found: Any
) -> None:
    mixed = EditDirection("mixed", found[0].direction + found[1].direction, found[0].family)
    edited, _, _ = apply(node_module, latents[0], loaded, directions=(mixed, found[1]), which=0, keep="sefa 1")
    change = (edited.w_plus_0 - latents[0].w_plus_0)[0]
    assert abs(float(change @ found[1].direction)) < 1e-4 and float(change @ found[0].direction) > 0
    with pytest.raises(FileNotFoundError, match="No direction named 'nothing'"):
        apply(node_module, latents[0], loaded, directions=found, keep="nothing")
    with pytest.raises(ValueError, match="which should be 0 to 2"):
        apply(node_module, latents[0], loaded, directions=found, which=3)


def test_what_cannot_fit_is_refused_before_the_latent_is_computed(node_module: NodeModule, loaded: Any) -> None:
    check = node_module("edit").EditFirstLatent.check_lazy_status
    with pytest.raises(ValueError, match="width"):
        check(loaded, "none", "all", directions=(EditDirection("x", torch.ones(32), BIRDS),))
    with pytest.raises(ValueError, match="width"):
        check(loaded, "none", "all", keep="yaw")
    assert check(loaded, "none", "all") == ["latent"]


@pytest.mark.weights
def test_strength_in_visible_change_does_not_depend_on_the_length_of_the_direction(
    node_module: NodeModule, loaded: Any, latents: list[Any], found: Any
) -> None:
    long = EditDirection("long", 7 * found[0].direction, found[0].family)
    changes = [
        apply(node_module, latents[0], loaded, 1.0, directions=(one,), strength_in="visible change")[0].w_plus_0
        - latents[0].w_plus_0
        for one in (found[0], long)
    ]
    torch.testing.assert_close(changes[0], changes[1], rtol=0.15, atol=1e-3)


def test_scores_from_a_link_or_as_text_give_the_same_direction(node_module: NodeModule, latents: list[Any]) -> None:
    node = node_module("find_directions").DirectionFromScores
    scores = [float(latent.w_plus_0[0, 0]) for latent in latents]
    (linked,), report = node.execute(latents, [""], ["first axis"], ["all"], [scores]).result
    (typed,), _ = node.execute(latents, [", ".join(map(str, scores))], ["first axis"], ["all"]).result
    torch.testing.assert_close(linked.direction, typed.direction)
    assert float(linked.direction[0]) > 0 and "12 scores" in report
    with pytest.raises(ValueError, match="numbers with commas"):
        node.execute(latents, ["1, two"], ["x"], ["all"])


def test_edit_over_time_takes_a_curve_or_a_list_and_all_samples(node_module: NodeModule) -> None:
    base = torch.randn(5, 10, 16)
    sample = TrajectorySample(base + 1, base, np.arange(5) / 4, Fraction(4), BIRDS, "", edits=("x=1",))
    node = node_module("edit_time").EditOverTime
    (curved,) = node.execute([sample, sample], ["0:0, end:1"], ["straight"]).result
    assert len(curved) == 2
    torch.testing.assert_close(curved[1].w_plus[:], base + torch.linspace(0, 1, 5)[:, None, None])
    (listed,) = node.execute([sample], ["1"], ["smooth"], [[0.0, 1.0, 0.0]]).result
    torch.testing.assert_close((listed[0].w_plus[:] - base)[:, 0, 0], torch.tensor([0, 0.5, 1, 0.5, 0]))
    assert node.validate_inputs(curve=["0:0, end"]) is not True and node.validate_inputs(curve="0:0, end:1") is True


def test_transfer_edit_changes_another_face_in_the_same_way(
    node_module: NodeModule, loaded: Any, latents: list[Any], found: Any
) -> None:
    edited, _, _ = apply(node_module, latents[0], loaded, directions=found)
    (moved,) = node_module("edit_time").TransferEdit.execute(edited, latents[1], 1.0, "0-3").result
    change = moved.w_plus_0 - latents[1].w_plus_0
    torch.testing.assert_close(change[:4], (edited.w_plus_0 - latents[0].w_plus_0)[:4])
    assert not change[4:].any()
