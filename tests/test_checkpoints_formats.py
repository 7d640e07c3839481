"""Every on-disk format gives the picture that the original code gives; damage and strangers are explained."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parity import assert_close
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dynode_pack.dynode_core.checkpoints import load as loading
from dynode_pack.dynode_core.checkpoints import nvidia
from dynode_pack.dynode_core.checkpoints.canonical import CanonicalGenerator, dataset_of
from dynode_pack.dynode_core.checkpoints.container import open_file
from dynode_pack.dynode_core.checkpoints.errors import (
    CheckpointError,
    RefusedCheckpointError,
    UnsupportedCheckpointError,
)
from dynode_pack.dynode_core.checkpoints.load import convert_checkpoint, load_generator
from dynode_pack.dynode_core.checkpoints.readers import read_generator_file
from dynode_pack.dynode_core.checkpoints.safetensors_header import change_metadata, read_metadata
from dynode_pack.dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_pack.dynode_core.generators.stylegan2 import StyleGAN2
from dynode_pack.dynode_core.generators.stylegan2_config import (
    StyleGAN2Config,
    channels_of,
    check_state,
    expected_shapes,
)

Golden = Callable[[str], Path]

NVIDIA_FILES = [
    "nv_sg2_r32.pkl",
    "nv_sg2_r32_proto3.pkl",
    "nv_sg2_gema_only_r32.pkl",
    "tf_stylegan2_r32.pkl",
    "pti_model_tiny.pt",
    "stit_pti_model_tiny.pt",
]
ROSINALITY_FILES = [
    "rosinality_r32.pt",
    "rosinality_r32_legacyfmt.pt",
    "rosinality_r32_cuda_tagged.pt",
    "rosinality_train_r32.pt",
]


def build(read: CanonicalGenerator) -> StyleGAN2:
    assert read.config is not None
    return StyleGAN2(read.state, read.config, family=read.family, generator_id="0")


@pytest.mark.parametrize("name", NVIDIA_FILES)
def test_nvidia_formats_give_nvidias_picture(golden: Golden, name: str) -> None:
    data = load_file(golden("nv_sg2_r32.safetensors"))
    read = read_generator_file(golden(name))
    generator = build(read)
    assert read.family == "stylegan2-unknown-32x8"
    assert_close(generator.synthesize(data["in.wplus"]), data["out.img_const"])
    assert_close(generator.map(data["in.z"], truncation_psi=0.7), data["out.ws_psi0.7_cutoffNone"])


@pytest.mark.parametrize("name", ROSINALITY_FILES)
def test_rosinality_formats_give_rosinalitys_picture(golden: Golden, name: str) -> None:
    data = load_file(golden("rosinality_r32.safetensors"))
    generator = build(read_generator_file(golden(name)))
    assert_close(generator.synthesize(data["in.wplus"]), data["out.img_const"])
    assert_close(generator.synthesize(data["in.wplus"], noise_mode="none"), data["out.img_zero_noise"])
    assert_close(generator.map(data["in.z"])[:, 0], data["out.w"])
    if "train" not in name:
        assert torch.equal(generator.w_avg, data["latent_avg"])
        image = generator.synthesize(generator.map(data["in.z"], truncation_psi=0.7))
        assert_close(image, data["out.img_from_z_trunc0.7"])


@pytest.mark.parametrize("name", ["rosinality_r32", "rosinality_r64", "rosinality_equals_nv_r32"])
def test_rosinality_networks_of_every_size(golden: Golden, tmp_path: Path, name: str) -> None:
    data = load_file(golden(f"{name}.safetensors"))
    weights = {key.removeprefix("weights."): value for key, value in data.items() if key.startswith("weights.")}
    torch.save({"g_ema": weights, "latent_avg": data["latent_avg"]}, tmp_path / "x.pt")
    generator = build(read_generator_file(tmp_path / "x.pt"))
    assert_close(generator.synthesize(data["in.wplus"]), data["out.img_const"])


def test_missing_mean_w_is_estimated(golden: Golden) -> None:
    generator = build(read_generator_file(golden("rosinality_train_r32.pt")))
    w = generator.map(torch.randn(50_000, 32, generator=torch.Generator().manual_seed(5)))[:, 0]
    assert (generator.w_avg - w.mean(dim=0)).abs().max() < 0.05 * w.std()


def test_decoder_of_an_encoder_file(golden: Golden) -> None:
    data = load_file(golden("e4e_tiny_expected.safetensors"))
    for name in ("e4e_tiny.pt",):
        read = read_generator_file(golden(name))
        assert read.family == "stylegan2-ffhq-32x8"
    generator = build(read_generator_file(golden("e4e_tiny.pt")))
    assert_close(generator.synthesize(data["out.latents"]), data["out.img"])


def test_mobile_stylegan_checkpoint(golden: Golden) -> None:
    data = load_file(golden("mobilestylegan_r64.safetensors"))
    read = read_generator_file(golden("mobilestylegan_tiny.ckpt"))
    state = dict(read.state)
    state["conv1.noise"] = data["in.noise.0"] * data["synthesis.conv1.noise.weight"]
    for layer in range(3):
        for conv in (1, 2):
            strength = data[f"synthesis.layers.{layer}.conv{conv}.noise.weight"]
            state[f"layers.{layer}.conv{conv}.noise"] = data[f"in.noise.{layer + 1}"][conv - 1 : conv] * strength
    generator = MobileStyleGAN(state, family=read.family, generator_id="0")
    assert read.family == "mobile_stylegan-unknown-64"
    assert_close(generator.map(data["in.z"])[:, 0], data["out.w"])
    assert_close(generator.synthesize(data["in.wplus"]), data["out.img_wplus"])


def test_training_settings_come_from_the_modules(golden: Golden) -> None:
    opened = open_file(golden("nv_sg2_gema_only_r32.pkl"))
    module = nvidia.read_module(opened.root["G_ema"], opened)
    for block in module.parts["synthesis"].parts.values():
        block.settings["use_fp16"] = block.settings["resolution"] >= 16
        for layer in block.parts.values():
            layer.settings["conv_clamp"] = 256
    module.parts["mapping"].parts["fc0"].settings["bias_gain"] = 0.02
    config = nvidia._config_of(module, opened)
    assert (config.conv_clamp, config.num_fp16_res, config.fp16_resolution, config.mapping_lr) == (256.0, 2, 16, 0.02)
    assert config.fir_taps == (1.0, 3.0, 3.0, 1.0)


def test_plain_state_dict_under_nvidias_names(golden: Golden, tmp_path: Path) -> None:
    for name in ("nv_sg2_r32", "nv_sg2_r16_cond_mapping2", "nv_sg2_r16_arch_orig", "nv_sg2_r16_arch_resnet"):
        data = load_file(golden(f"{name}.safetensors"))
        weights = {key.removeprefix("weights."): value for key, value in data.items() if key.startswith("weights.")}
        torch.save(weights, tmp_path / "x.pth")
        save_file(weights, tmp_path / "x.safetensors")
        for path in (tmp_path / "x.pth", tmp_path / "x.safetensors"):
            assert_close(build(read_generator_file(path)).synthesize(data["in.wplus"]), data["out.img_const"])


MANIFESTS = {
    "nv_ffhq1024_configf": ("nvidia", 1024, 18),
    "nv_512_auto": ("nvidia", 512, 16),
    "nv_256_paper256_auto": ("nvidia", 256, 14),
    "rosinality_1024": ("rosinality", 1024, 18),
    "rosinality_256": ("rosinality", 256, 14),
    "rosinality_256_channel_multiplier1": ("rosinality", 256, 14),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_full_size_state_dicts_load_by_name_and_shape(golden: Golden, name: str) -> None:
    from dynode_pack.dynode_core.checkpoints.rosinality import _config_of, canonical_state

    manifest = json.loads(golden("manifests_full_size.json").read_text())[name]["tensors"]
    layout, resolution, num_ws = MANIFESTS[name]
    state = {key: torch.empty(shape, device="meta") for key, (_, shape) in manifest.items()}
    if layout == "rosinality":
        source = {key: value for key, value in state.items() if not key.endswith("blur.kernel")}
        state = canonical_state(state)
        config = _config_of(source, state)
        state["mapping.w_avg"] = torch.empty(512, device="meta")
    else:
        layers = sum(key.startswith("mapping.fc") and key.endswith("weight") for key in state)
        config = StyleGAN2Config(z_dim=512, w_dim=512, resolution=resolution, mapping_layers=layers)
    check_state(state, config)
    assert config.num_ws == num_ws
    unused = [key for key in state if "resample_filter" not in key]
    assert set(unused) == set(expected_shapes(config, channels_of(state, config)))


def test_full_size_mobile_stylegan_manifest(golden: Golden) -> None:
    from dynode_pack.dynode_core.checkpoints.mobile_stylegan_ckpt import _synthesis

    manifest = json.loads(golden("manifests_full_size.json").read_text())["mobilestylegan_student_1024"]
    source = {f"student.{key}": torch.zeros(shape) for key, (_, shape) in manifest["tensors"].items()}
    state = {**_synthesis(source), "w_avg": torch.zeros(512)}
    state |= {
        f"mapping.{i}.{part}": torch.zeros((512, 512)[: 2 - (part == "bias")])
        for i in range(8)
        for part in ("weight", "bias")
    }
    generator = MobileStyleGAN(state, family="x", generator_id="0")
    assert (generator.num_ws, generator.resolution) == (manifest["meta"]["wsize"], 1024)


def test_conversion_keeps_the_picture_and_says_where_it_came_from(golden: Golden, tmp_path: Path) -> None:
    data = load_file(golden("nv_sg2_r32.safetensors"))
    target = convert_checkpoint(golden("nv_sg2_gema_only_r32.pkl"), tmp_path / "new" / "x.safetensors")
    generator = load_generator(target)
    assert_close(generator.synthesize(data["in.wplus"]), data["out.img_const"])
    assert_close(generator.w_avg, data["weights.mapping.w_avg"], 0)
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == "nv_sg2_gema_only_r32.pkl" and len(metadata["source_sha256"]) == 64
    assert metadata["family"] == generator.family == "stylegan2-unknown-32x8"
    assert metadata["generator_id"] == generator.generator_id and len(generator.generator_id) == 16
    assert StyleGAN2Config.from_json(metadata["config"]).resolution == 32
    assert [path.name for path in target.parent.iterdir()] == ["x.safetensors"]
    again = convert_checkpoint(target, tmp_path / "again.safetensors")
    assert load_generator(again).generator_id == generator.generator_id


def test_same_weights_have_one_identity_in_every_format(golden: Golden, tmp_path: Path) -> None:
    names = ["nv_sg2_gema_only_r32.pkl", "stit_pti_model_tiny.pt"]
    assert len({load_generator(golden(name), cache_dir=tmp_path).generator_id for name in names}) == 1


def test_first_load_leaves_a_copy_beside_the_file(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "ffhq.pt"
    source.write_bytes(golden("rosinality_r32_cuda_tagged.pt").read_bytes())
    first = load_generator(source)
    copy = tmp_path / "ffhq.pt.dynode.safetensors"
    assert copy.is_file() and first.family == "stylegan2-ffhq-32x8"
    calls = []
    monkeypatch.setattr(loading, "read_generator_file", lambda path: calls.append(path))
    assert load_generator(source).generator_id == first.generator_id
    assert not calls


def test_changed_file_is_converted_again(golden: Golden, tmp_path: Path) -> None:
    source = tmp_path / "x.pkl"
    source.write_bytes(golden("nv_sg2_gema_only_r32.pkl").read_bytes())
    first = load_generator(source)
    source.write_bytes(golden("rosinality_r32_cuda_tagged.pt").read_bytes())
    earlier = (tmp_path / "x.pkl.dynode.safetensors").stat().st_mtime - 500  # as an unpacked or moved file has it
    os.utime(source, (earlier, earlier))
    assert load_generator(source).generator_id != first.generator_id


def test_file_that_was_only_touched_is_not_converted_again(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "x.pt"
    source.write_bytes(golden("rosinality_r32_cuda_tagged.pt").read_bytes())
    first = load_generator(source)
    later = source.stat().st_mtime + 500
    os.utime(source, (later, later))
    calls: list[Path] = []
    monkeypatch.setattr(loading, "read_generator_file", calls.append)
    assert load_generator(source).generator_id == first.generator_id and not calls


def test_file_that_was_touched_is_hashed_once(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy = tmp_path / "x.pt", tmp_path / "x.pt.dynode.safetensors"
    source.write_bytes(golden("rosinality_r32_cuda_tagged.pt").read_bytes())
    first = load_generator(source)
    tensors, metadata = load_file(copy), read_metadata(copy)
    os.utime(source, (10**9, 10**9))
    hashed: list[Path] = []
    sha256 = loading._sha256
    monkeypatch.setattr(loading, "_sha256", lambda path: hashed.append(path) or sha256(path))
    assert [load_generator(source).generator_id for _ in range(3)] == [first.generator_id] * 3
    assert hashed == [source]
    assert read_metadata(copy) == {**metadata, "source_stamp": loading._stamp(source)}
    noted = load_file(copy)
    assert noted.keys() == tensors.keys() and all(torch.equal(noted[name], tensors[name]) for name in tensors)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, copy.name}


def test_copy_of_an_earlier_converter_is_made_again(golden: Golden, tmp_path: Path) -> None:
    source, copy = tmp_path / "x.pt", tmp_path / "x.pt.dynode.safetensors"
    source.write_bytes(golden("rosinality_r32_cuda_tagged.pt").read_bytes())
    first = load_generator(source)
    loading.change_metadata(copy, {"converter": "1", "generator_id": "of another processor"})
    assert load_generator(source).generator_id == first.generator_id
    assert read_metadata(copy)["converter"] == loading._CONVERTER


def test_copy_that_can_not_note_the_new_time_is_still_used(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, copy = tmp_path / "x.pt", tmp_path / "x.pt.dynode.safetensors"
    source.write_bytes(golden("rosinality_r32_cuda_tagged.pt").read_bytes())
    first = load_generator(source)
    before = copy.read_bytes()
    os.utime(source, (10**9, 10**9))

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "replace", refuse)
    assert load_generator(source).generator_id == first.generator_id
    assert copy.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {source.name, copy.name}


def test_metadata_of_what_is_no_safetensors_file_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not one")
    with pytest.raises(ValueError, match="no safetensors file"):
        change_metadata(path, {"a": "b"})
    assert path.read_bytes() == b"not one" and list(tmp_path.iterdir()) == [path] and read_metadata(path) == {}


def test_folder_that_takes_no_copy_is_no_obstacle(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    source = folder / "x.pt"
    source.write_bytes(golden("rosinality_r32_cuda_tagged.pt").read_bytes())
    (folder / "x.pt.dynode.safetensors").mkdir()  # cannot be replaced by a file, whoever runs the test
    monkeypatch.setenv("DYNODE_CACHE", str(tmp_path / "cache"))
    assert load_generator(source).resolution == 32
    assert len(list((tmp_path / "cache" / "generators").iterdir())) == 1


def test_half_written_conversion_is_never_left(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(loading, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        convert_checkpoint(golden("nv_sg2_gema_only_r32.pkl"), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lucidrains_like_tiny.pt", r"not a StyleGAN2 \(NVIDIA layout\) checkpoint"),
    ],
)
def test_other_architectures_are_named(golden: Golden, name: str, message: str) -> None:
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_generator(golden(name))


def _persistent(class_name: str, parts: dict[str, object]) -> object:
    """What NVIDIA's persistence writes, built without their code."""
    meta = {"type": "class", "version": 6, "module_src": "", "class_name": class_name, "state": {"_modules": parts}}
    return _Persistent(meta)


class _Persistent:
    def __init__(self, meta: dict[str, object]) -> None:
        self.meta = meta

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta: object) -> None:
    raise AssertionError("a checkpoint was executed")


def _write_persistent(path: Path, value: object) -> Path:
    data = pickle.dumps({"G_ema": value}, protocol=3)
    path.write_bytes(data.replace(f"c{__name__}\n".encode(), b"ctorch_utils.persistence\n"))
    return path


def test_stylegan3_and_other_networks_of_nvidia_are_named(tmp_path: Path) -> None:
    empty = _persistent("MappingNetwork", {})
    synthesis = _persistent("SynthesisNetwork", {"input": _persistent("SynthesisInput", {}), "L0_36_1024": empty})
    path = _write_persistent(tmp_path / "sg3.pkl", _persistent("Generator", {"mapping": empty, "synthesis": synthesis}))
    with pytest.raises(UnsupportedCheckpointError, match="StyleGAN3"):
        load_generator(path)
    path = _write_persistent(tmp_path / "eg3d.pkl", _persistent("TriPlaneGenerator", {"backbone": empty}))
    with pytest.raises(UnsupportedCheckpointError, match="TriPlaneGenerator"):
        load_generator(path)


def test_files_that_are_no_generators_are_explained(golden: Golden, tmp_path: Path) -> None:
    cases = {
        "direction_interfacegan_18x512_float64.npy": "one array",
        "direction_e4e_1x512.pt": "not a generator",
        "psp_opts_namespace_tiny.pt": "encoder without its decoder",
        "nv_ops.safetensors": "holds no generator",
    }
    for name, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load_generator(golden(name), cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["malicious.pkl", "malicious.pt", "malicious_nested_storage.pkl"])
def test_malicious_generator_is_refused(golden: Golden, tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedCheckpointError, match="refused: this file wants to run posix.system"):
        load_generator(golden(name), cache_dir=tmp_path)


def test_weights_that_are_no_numbers_are_an_error(golden: Golden, tmp_path: Path) -> None:
    data = load_file(golden("rosinality_r32.safetensors"))
    weights = {key.removeprefix("weights."): value for key, value in data.items() if key.startswith("weights.")}
    weights["convs.2.conv.weight"] = torch.full_like(weights["convs.2.conv.weight"], float("nan"))
    torch.save({"g_ema": weights}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"NaN or infinity, first in synthesis\.b16\.conv0\.weight"):
        load_generator(tmp_path / "x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("change", ["missing", "shape", "absurd"])
def test_incomplete_or_misshapen_weights_are_an_error(golden: Golden, tmp_path: Path, change: str) -> None:
    data = load_file(golden("rosinality_r32.safetensors"))
    weights = {key.removeprefix("weights."): value for key, value in data.items() if key.startswith("weights.")}
    if change == "missing":
        del weights["convs.1.conv.weight"]
    elif change == "shape":
        weights["convs.1.conv.weight"] = weights["convs.1.conv.weight"][..., :2]
    else:
        weights["style.1.weight"] = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save({"g_ema": weights}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError):
        load_generator(tmp_path / "x.pt")


def test_damaged_conversion_is_an_error(golden: Golden, tmp_path: Path) -> None:
    target = convert_checkpoint(golden("nv_sg2_gema_only_r32.pkl"), tmp_path / "x.safetensors")
    data = target.read_bytes()
    for length in (4, 300, len(data) - 10):
        target.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"x\.safetensors"):
            load_generator(target)


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        ("models/stylegan2-ffhq-config-f.pkl", "ffhq"),
        ("afhqv2-512x512.pkl", "afhqv2"),
        ("stylegan2-car-config-f.pkl", "car"),
        ("stylegan2-cat-config-f.pkl", "cat"),
        ("scars.pt", "unknown"),
        ("isaac3d-128.pt", "isaac3d"),
    ],
)
def test_data_set_is_read_off_the_name(hint: str, name: str) -> None:
    assert dataset_of((hint,)) == name


@pytest.mark.parametrize(
    ("name", "resolution", "family"),
    [
        ("stylegan2-church-256.pt", 256, "stylegan2-church-256x14"),
        ("isaac3d-128.pt", 128, "stylegan2-isaac3d-128x12"),
        ("stylegan2-car-config-f.pt", 512, "stylegan2-car-512x16"),
        ("mine.pt", 64, "stylegan2-unknown-64x10"),
    ],
)
def test_other_categories_and_sizes_go_the_same_way(tmp_path: Path, name: str, resolution: int, family: str) -> None:
    config = StyleGAN2Config(z_dim=8, w_dim=8, resolution=resolution, mapping_layers=2)
    source = torch.Generator().manual_seed(0)
    shapes = expected_shapes(config, {res: 4 for res in config.block_resolutions})
    torch.save({key: torch.randn(shape, generator=source) for key, shape in shapes.items()}, tmp_path / name)
    generator = load_generator(tmp_path / name)
    assert generator.family == family
    with torch.no_grad():
        image = generator.synthesize(generator.map(torch.randn(1, 8, generator=source)))
    assert image.shape == (1, 3, resolution, resolution) and bool(torch.isfinite(image).all())
