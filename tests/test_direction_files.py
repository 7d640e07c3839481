"""Direction files and edit networks of other projects, against what those projects compute with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynode_pack.dynode_core.checkpoints.npz import load_npz
from dynode_pack.dynode_core.editing import apply_direction, list_directions, load_direction
from dynode_pack.dynode_core.editing.latent import check_direction_fits, direction_rows
from dynode_pack.dynode_core.editing.networks import NetworkEdit
from dynode_pack.dynode_core.types import EditDirection, EditedLatent

FAMILY, MOBILE = "stylegan2-ffhq-1024x18", "mobile_stylegan-ffhq-1024"
Golden = Callable[[str], Path]


@pytest.fixture(scope="module")
def edits(golden: Golden) -> dict[str, Tensor]:
    return load_file(golden("edits.safetensors"))


def latent_of(code: Tensor, family: str = FAMILY) -> EditedLatent:
    return EditedLatent(code, code, (), family)


def weights(edits: dict[str, Tensor], prefix: str, name: str = "") -> dict[str, Tensor]:
    start = f"{prefix}.weights."
    return {name + key.removeprefix(start): tensor for key, tensor in edits.items() if key.startswith(start)}


def test_interfacegan_file_moves_a_code_as_stit_does(edits, golden):
    direction = load_direction(golden("direction_interfacegan_18x512_float64.npy"), family=FAMILY)
    assert direction.direction.shape == (18, 512) and direction.family == "ffhq-w"
    rows = EditDirection("x", edits["stit_interfacegan.direction_npy"].float(), FAMILY)
    for code, expected in zip(edits["styleclip.in.wplus"], edits["stit_interfacegan.out.range-8"].float(), strict=True):
        torch.testing.assert_close(apply_direction(latent_of(code), rows, -4).w_plus_0, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["pt", "npz", "npz, packed"])
def test_ganspace_components_move_a_code_as_e4e_does(edits, tmp_path, kind):
    mean, comp, std = (edits[f"ganspace.{name}"] for name in ("mean", "comp", "std"))
    path = tmp_path / f"ffhq_pca.{kind[:3].strip(',')}"
    if kind == "pt":
        torch.save({"mean": mean, "comp": comp, "std": std}, path)
    else:
        save = np.savez if kind == "npz" else np.savez_compressed
        save(path, lat_comp=comp.numpy(), lat_stdev=std.numpy(), lat_mean=mean.numpy(), act_comp=comp.numpy())
    assert list(list_directions([tmp_path]))[-8:] == [f"{path.name}[{i}]" for i in range(8)]
    code = edits["styleclip.in.wplus"][0]
    expected = edits["ganspace.out.edits_idx1_0-5_strength3__idx4_2-9_strength-2"]
    for (index, layers, strength), wanted in zip(((1, "0-4", 3), (4, "2-8", -2)), expected, strict=True):
        direction = load_direction(f"{path.name}[{index}]", [tmp_path], family=FAMILY)
        # e4e sets the coordinate of the code to the strength; here the strength is added to it.
        coordinate = float((code[0] - mean[0]) @ direction.direction / std[index] ** 2)
        edited = apply_direction(latent_of(code), direction, strength - coordinate, layers)
        torch.testing.assert_close(edited.w_plus_0, wanted, rtol=0, atol=1e-5)


def test_latent_transformer_file_equals_the_original(edits, tmp_path):
    torch.save(weights(edits, "yao"), tmp_path / "tnet_031.pth.tar")
    assert "tnet_031.pth.tar" in list_directions([tmp_path])
    edit = load_direction("tnet_031.pth.tar", [tmp_path], family=FAMILY)
    for strength in ("1.0", "-1.5"):
        for i, code in enumerate(edits["yao.in.wplus"]):
            everywhere = apply_direction(latent_of(code), edit, float(strength))
            torch.testing.assert_close(everywhere.w_plus_0, edits[f"yao.out.alpha{strength}"][i], rtol=0, atol=1e-5)
            first = apply_direction(latent_of(code), edit, float(strength), "0-10")
            wanted = edits[f"yao.out.alpha{strength}.video_rule_first11"][i]
            torch.testing.assert_close(first.w_plus_0, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["all", "no_fine"])
def test_style_clip_mapper_file_equals_the_original(edits, tmp_path, case):
    state = weights(edits, "styleclip")
    if case == "no_fine":
        state = {name: tensor for name, tensor in state.items() if "fine" not in name}
    torch.save({"state_dict": {**state, "decoder.style.1.weight": torch.zeros(3, 3)}, "opts": {}}, tmp_path / "a.pt")
    edit = load_direction("a.pt", [tmp_path], family=FAMILY)
    for code, wanted in zip(edits["styleclip.in.wplus"], edits[f"styleclip.out.edited_{case}"], strict=True):
        torch.testing.assert_close(apply_direction(latent_of(code), edit, 1).w_plus_0, wanted, rtol=0, atol=1e-5)


def test_style_clip_single_mapper_file_equals_the_original(edits, tmp_path):
    save_file(weights(edits, "styleclip_single"), tmp_path / "a.safetensors")
    edit = load_direction("a.safetensors", [tmp_path], family=FAMILY)
    for code, delta in zip(edits["styleclip.in.wplus"], edits["styleclip_single.out.delta"], strict=True):
        torch.testing.assert_close(edit.change(code), 0.1 * delta, rtol=0, atol=1e-5)


def test_network_edits_codes_of_the_distilled_generator_by_the_rows_that_draw_the_same(edits, tmp_path):
    torch.save(weights(edits, "yao"), tmp_path / "t.pt")
    edit = load_direction("t.pt", [tmp_path], family=MOBILE)
    code = edits["yao.in.wplus"][0]
    mobile = code[[0, *(2 * layer + row for layer in range(7) for row in (1, 2, 3)), 15]]
    edited = apply_direction(latent_of(mobile, MOBILE), edit, 1.0).w_plus_0 - mobile
    wanted = (edits["yao.out.alpha1.0"][0] - code)[[0, 1, 2, 3]]
    torch.testing.assert_close(edited[[0, 1, 2, 4]], wanted[[0, 1, 2, 3]], rtol=0, atol=1e-5)


def test_networks_refuse_codes_of_another_width_or_number_of_rows(edits, tmp_path):
    torch.save(weights(edits, "yao"), tmp_path / "t.pt")
    edit = load_direction("t.pt", [tmp_path], family=FAMILY)
    assert isinstance(edit, NetworkEdit)
    with pytest.raises(ValueError, match="width 16, but the codes have width 512"):
        check_direction_fits(edit, torch.Size((18, 512)), FAMILY)
    with pytest.raises(ValueError, match="18 rows, but the codes have 14"):
        check_direction_fits(edit, torch.Size((14, 16)), "stylegan2-ffhq-256x14")


def test_network_file_without_a_layer_is_refused(edits, tmp_path):
    torch.save({k: v for k, v in weights(edits, "yao").items() if ".3." not in k}, tmp_path / "t.pt")
    with pytest.raises(ValueError, match="incomplete"):
        load_direction("t.pt", [tmp_path], family=FAMILY)


def test_style_space_tables_are_refused_with_the_reason(tmp_path):
    np.save(tmp_path / "fs3.npy", np.zeros((6048, 8), np.float32))
    with pytest.raises(ValueError, match="need CLIP"):
        load_direction("fs3.npy", [tmp_path])


def test_several_named_directions_are_listed_one_by_one(tmp_path):
    age, glasses = torch.randn(2, 1, 512)
    torch.save({"age": age, "glasses": glasses}, tmp_path / "found.pt")
    assert list(list_directions([tmp_path]))[-2:] == ["found.pt[age]", "found.pt[glasses]"]
    torch.testing.assert_close(load_direction("found.pt[glasses]", [tmp_path]).direction, glasses[0])
    with pytest.raises(ValueError, match=r"several directions \(age, glasses\).*found.pt\[age\]"):
        load_direction("found.pt", [tmp_path])
    with pytest.raises(ValueError, match="none called 'hat'"):
        load_direction("found.pt[hat]", [tmp_path])


def test_a_file_named_with_brackets_is_read_as_it_is(tmp_path):
    np.save(tmp_path / "smile [v2].npy", np.ones(512, np.float32))
    assert load_direction("smile [v2].npy", [tmp_path]).direction.shape == (512,)


def test_files_that_would_run_code_are_listed_but_never_run(golden, tmp_path):
    folder = golden("malicious.pt").parent
    assert "malicious.pt" in list_directions([folder])
    with pytest.raises(ValueError):
        load_direction("malicious.pt", [folder])


def test_archives_that_unpack_to_too_much_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "big.npz", lat_comp=np.zeros((2, 1, 5000), np.float32))
    with pytest.raises(ValueError, match="unpacks to more"):
        load_npz(tmp_path / "big.npz", ["lat_comp"], most_bytes=1000)


def test_damaged_archive_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", lat_comp=np.random.randn(8, 1, 512))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_direction("a.npz", [tmp_path])


def test_rows_of_a_smaller_stylegan2_act_on_the_layers_that_both_have():
    rows = torch.randn(14, 512)
    wide = direction_rows(EditDirection("x", rows, "unknown-w"), torch.Size((18, 512)), FAMILY)
    assert torch.equal(wide[:14], rows) and not wide[14:].any()
    narrow = direction_rows(EditDirection("x", wide + 1, "unknown-w"), torch.Size((14, 512)), "stylegan2-ffhq-256x14")
    assert torch.equal(narrow, wide[:14] + 1)
    mobile = direction_rows(EditDirection("x", rows, "unknown-w"), torch.Size((23, 512)), MOBILE)
    assert torch.equal(mobile[[0, 1, 2, 4]], rows[[0, 1, 2, 3]])
