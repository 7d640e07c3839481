"""Encoders and ArcFace against the numbers of the original implementations."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import OWN, assert_close
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from dynode_pack.dynode_core.checkpoints.errors import CheckpointError, RefusedCheckpointError
from dynode_pack.dynode_core.checkpoints.load import load_generator
from dynode_pack.dynode_core.inversion.encoders import load_encoder
from dynode_pack.dynode_core.inversion.encoders.identity import IdentityNetwork
from dynode_pack.dynode_core.inversion.encoders.networks import EncoderNetwork

Golden = Callable[[str], Path]

NETWORKS = {
    "e4e_encoder_tiny": "Encoder4Editing",
    "psp_encoder_tiny": "GradualStyleEncoder",
    "restyle_BackboneEncoder_tiny": "BackboneEncoder",
    "restyle_ProgressiveBackboneEncoder_tiny": "ProgressiveBackboneEncoder",
}


def weights_of(data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("weights."): value for key, value in data.items() if key.startswith("weights.")}


def image_of(data: dict[str, Tensor], golden: Golden) -> Tensor:
    return data["in.x"] if "in.x" in data else load_file(golden("e4e_encoder_tiny.safetensors"))["in.x"]


@pytest.mark.parametrize("name", NETWORKS)
def test_codes_equal_those_of_the_original(golden: Golden, name: str) -> None:
    data = load_file(golden(f"{name}.safetensors"))
    network = EncoderNetwork(weights_of(data), NETWORKS[name])
    with torch.no_grad():
        assert_close(network(image_of(data, golden)), data["out.codes"])


@pytest.mark.parametrize("name", ["e4e_encoder_tiny", "psp_encoder_tiny"])
def test_feature_maps_equal_those_of_the_original(golden: Golden, name: str) -> None:
    data = load_file(golden(f"{name}.safetensors"))
    network = EncoderNetwork(weights_of(data), NETWORKS[name])
    with torch.no_grad():
        first = network.input_layer(image_of(data, golden))
        for unit, maps in zip((6, 20, 23), network.features(image_of(data, golden)), strict=True):
            expected = data[f"act.body.{unit}"]
            assert_close(
                maps[:, :, :: maps.shape[2] // expected.shape[2], :: maps.shape[3] // expected.shape[3]], expected
            )
    assert_close(first[:, :, ::4, ::4], data["act.input_layer"])


def seeded_weights(shapes: dict[str, torch.Size], seed: int) -> dict[str, Tensor]:
    """The rule SEEDED-ENC of the reference files: weights drawn from a generator seeded by each name."""
    state = {}
    for name, shape in shapes.items():
        source = np.random.RandomState(zlib.crc32(name.encode()) ^ seed)

        def draw(scale: float, source: np.random.RandomState = source, shape: torch.Size = shape) -> np.ndarray:
            return (source.standard_normal(tuple(shape)) * scale).astype(np.float32)

        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            value = 0.5 + np.abs(draw(1.0)) * np.float32(0.5)
        elif name.endswith("running_mean"):
            value = draw(0.1)
        elif len(shape) == 4:
            value = draw((2 / (shape[1] * shape[2] * shape[3])) ** 0.5)
        elif len(shape) == 2:
            value = draw(1.0)
        elif name.endswith(".bias"):
            value = draw(0.05)
        elif "res_layer.2." in name or "input_layer.2." in name:
            value = 0.25 + draw(0.05)
        elif name.endswith("res_layer.4.weight"):
            value = 0.1 + draw(0.03)
        else:
            value = 1 + draw(0.1)
        state[name] = torch.from_numpy(value)
    return state


@pytest.mark.slow
def test_full_width_encoder_equals_the_original(golden: Golden) -> None:
    data = load_file(golden("e4e_encoder_fullwidth_seeded.safetensors"))
    manifest = json.loads(golden("manifests_full_size.json").read_text())["Encoder4Editing_1024"]["tensors"]
    shapes = {name: torch.Size(shape) for name, (_, shape) in manifest.items() if not name.startswith("styles.")}
    for i in range(8):  # the reference has 8 rows; the widths and depths of a style block depend on its level only
        level = 0 if i < 3 else 3 if i < 7 else 7
        for name, (_, shape) in manifest.items():
            if name.startswith(f"styles.{level}."):
                shapes[name.replace(f"styles.{level}.", f"styles.{i}.")] = torch.Size(shape)
    with safe_open(golden("e4e_encoder_fullwidth_seeded.safetensors"), "pt") as file:
        state = seeded_weights(shapes, int(file.metadata()["seed"]))
    for name in (key.removeprefix("check.") for key in data if key.startswith("check.")):
        assert_close(state[name].flatten()[:16], data[f"check.{name}"], 1e-6)
    network = EncoderNetwork(state, "Encoder4Editing")
    with torch.no_grad():
        assert_close(network(data["in.x"]), data["out.codes"])
        strides = ((8, 4), (8, 2), (8, 1))
        for unit, maps, (channels, pixels) in zip((6, 20, 23), network.features(data["in.x"]), strides, strict=True):
            assert_close(maps[:, ::channels, ::pixels, ::pixels], data[f"act.body.{unit}"])


@pytest.mark.parametrize("name", ["Encoder4Editing_1024", "GradualStyleEncoder_1024"])
def test_full_size_encoder_state_dicts_load_by_name_and_shape(golden: Golden, name: str) -> None:
    manifest = json.loads(golden("manifests_full_size.json").read_text())[name]["tensors"]
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, (_, shape) in manifest.items()}
        network = EncoderNetwork(state, name.removesuffix("_1024"))
    assert (network.num_rows, network.w_dim, network.in_channels) == (18, 512, 3)
    assert set(network.state_dict()) == set(manifest)


def test_full_size_arcface_state_dict_loads_by_name_and_shape(golden: Golden) -> None:
    manifest = json.loads(golden("manifests_full_size.json").read_text())["arcface_ir_se50"]["tensors"]
    with torch.device("meta"):
        network = IdentityNetwork({key: torch.empty(shape) for key, (_, shape) in manifest.items()})
    assert set(network.state_dict()) == set(manifest)


def test_identity_equals_the_original(golden: Golden) -> None:
    data = load_file(golden("arcface_irse50_tiny.safetensors"))
    network = IdentityNetwork(weights_of(data))
    with torch.no_grad():
        embedding = network(data["in.face256"])
    assert_close(embedding, data["out.embedding"])
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


def test_e4e_file_encodes_and_decodes_as_the_original(golden: Golden) -> None:
    expected = load_file(golden("e4e_tiny_expected.safetensors"))
    image = load_file(golden("e4e_encoder_tiny.safetensors"))["in.x"]
    encoder = load_encoder(golden("e4e_tiny.pt"))
    assert (encoder.network.kind, encoder.family, encoder.num_ws) == ("Encoder4Editing", "stylegan2-ffhq-32x8", 8)
    with torch.no_grad():
        assert_close(encoder.network(image), expected["out.codes_minus_avg"])
    codes = encoder.encode(image)
    assert_close(codes, expected["out.latents"])
    before = image.clone()
    assert torch.equal(image, before)


def test_decoder_of_the_e4e_file_draws_the_original_picture(golden: Golden, tmp_path: Path) -> None:
    expected = load_file(golden("e4e_tiny_expected.safetensors"))
    image = load_file(golden("e4e_encoder_tiny.safetensors"))["in.x"]
    generator = load_generator(golden("e4e_tiny.pt"), cache_dir=tmp_path)
    codes = load_encoder(golden("e4e_tiny.pt")).encode(image)
    assert_close(generator.synthesize(codes), expected["out.img"])


def test_psp_file_loads_with_its_kind(golden: Golden) -> None:
    encoder = load_encoder(golden("psp_tiny.pt"))
    assert encoder.network.kind == "GradualStyleEncoder"
    assert encoder.encode(torch.zeros(1, 3, 512, 512)).shape == (1, 8, 16)


def restyle_file(golden: Golden, folder: Path, name: str) -> Path:
    data = load_file(golden(f"{name}.safetensors"))
    path = folder / f"{name}.pt"
    state = {f"encoder.{key}": value for key, value in weights_of(data).items()}
    mean = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    torch.save({"state_dict": state, "latent_avg": mean, "opts": {"encoder_type": NETWORKS[name]}}, path)
    return path


@pytest.mark.parametrize("name", ["restyle_BackboneEncoder_tiny", "restyle_ProgressiveBackboneEncoder_tiny"])
def test_restyle_adds_one_network_output_per_step(golden: Golden, tmp_path: Path, name: str) -> None:
    encoder = load_encoder(restyle_file(golden, tmp_path, name))
    generator = load_generator(golden("e4e_tiny.pt"), cache_dir=tmp_path)
    faces = load_file(golden("e4e_encoder_tiny.safetensors"))["in.x"]
    assert encoder.latent_avg is not None
    codes = encoder.latent_avg[None]
    with torch.no_grad():
        for _ in range(2):
            shown = torch.nn.functional.interpolate(generator.synthesize(codes), size=256, mode="nearest")
            codes = codes + encoder.network(torch.cat([faces, shown], dim=1))
    assert_close(encoder.encode(faces, generator, steps=2), codes, against=OWN)
    with pytest.raises(ValueError, match="connect the generator"):
        encoder.encode(faces)


def test_generator_with_other_codes_is_refused(golden: Golden, tmp_path: Path) -> None:
    encoder = load_encoder(restyle_file(golden, tmp_path, "restyle_BackboneEncoder_tiny"))
    other = load_generator(golden("nv_sg2_gema_only_r32.pkl"), cache_dir=tmp_path)
    with pytest.raises(ValueError, match="8 x 16, but the generator takes 8 x 32"):
        encoder.encode(torch.zeros(1, 3, 256, 256), other)


def test_files_without_a_whole_encoder_are_explained(golden: Golden, tmp_path: Path) -> None:
    cases = {"rosinality_r32_cuda_tagged.pt": "found none", "psp_opts_namespace_tiny.pt": "not a complete"}
    for name, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load_encoder(golden(name))
    with pytest.raises(RefusedCheckpointError):
        load_encoder(golden("malicious.pt"))
    with pytest.raises(FileNotFoundError):
        load_encoder(tmp_path / "none.pt")


def test_unsupported_encoder_type_is_named(golden: Golden) -> None:
    with pytest.raises(CheckpointError, match="'ResNetBackboneEncoder' are not supported"):
        load_encoder(golden("e4e_tiny.pt"), kind="ResNetBackboneEncoder")
    with pytest.raises(ValueError, match=r"\(N, 3, 256, 256\), but got \(1, 3, 64, 64\)"):
        load_encoder(golden("e4e_tiny.pt")).network(torch.zeros(1, 3, 64, 64))
