"""MobileStyleGAN, its files and its stand-ins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import OPENVINO, assert_close
from test_generators_stylegan2 import random_network
from tiny_generators import tiny_mobile, tiny_mobile_state

from dynode_pack.dynode_core.checkpoints.load import load_generator, read_generator, state_id, write_generator
from dynode_pack.dynode_core.checkpoints.openvino_ir import read_constants
from dynode_pack.dynode_core.generators import Generator, mobile_stylegan
from dynode_pack.dynode_core.generators.mobile_stylegan import MobileStyleGAN, inverse_haar
from dynode_pack.dynode_core.generators.proxy import exact_pictures, local_proxies
from dynode_pack.dynode_core.model_files import GENERATOR, find_model


def _write_ir(folder, arrays, *, truncate=0):
    layers, blob = [], b""
    for name, array in arrays.items():
        shape = ",".join(map(str, array.shape))
        layers.append(
            f'<layer name="{name}" type="Const"><data element_type="f32" shape="{shape}" '
            f'offset="{len(blob)}" size="{array.nbytes}"/></layer>'
        )
        blob += array.tobytes()
    path = folder / "Network.xml"
    path.write_text(f"<net><layers>{''.join(layers)}</layers></net>")
    path.with_suffix(".bin").write_bytes(blob[: len(blob) - truncate])
    return path


def test_inverse_haar_undoes_the_haar_transform():
    image = torch.randn(2, 3, 8, 8, dtype=torch.double)
    a, b = image[:, :, ::2, ::2], image[:, :, ::2, 1::2]
    c, d = image[:, :, 1::2, ::2], image[:, :, 1::2, 1::2]
    low, lh, hl, hh = a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d
    bands = torch.cat([low, torch.stack([lh, hl, hh], dim=2).flatten(1, 2)], dim=1) / 4
    torch.testing.assert_close(inverse_haar(bands, 3), image)


def test_generator_follows_the_protocol():
    generator = tiny_mobile()
    assert isinstance(generator, Generator)
    w_plus = generator.map(torch.randn(2, generator.z_dim), truncation_psi=0.5)
    assert w_plus.shape == (2, generator.num_ws, generator.w_dim)
    assert generator.synthesize(w_plus).shape == (2, 3, generator.resolution, generator.resolution)


@pytest.mark.parametrize("rows", [2, 6, 16, 64])
def test_strips_of_any_height_give_the_same_picture_and_gradient(monkeypatch, rows):
    generator = tiny_mobile()
    pictures, gradients = [], []
    for values in (2**20, rows * generator.resolution // 2):
        monkeypatch.setattr(mobile_stylegan, "_STRIP_VALUES", values)
        w_plus = generator.map(torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(1)))
        pictures.append(generator.synthesize(w_plus.requires_grad_(True)))
        gradients.append(torch.autograd.grad(pictures[-1].square().sum(), w_plus)[0])
    torch.testing.assert_close(pictures[1], pictures[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_truncation_zero_gives_the_mean_code():
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(1, generator.z_dim), truncation_psi=0.0)
    torch.testing.assert_close(w_plus[0], generator.w_avg.expand(generator.num_ws, -1))


def test_smaller_size_is_the_block_average_of_the_full_picture():
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(1, generator.z_dim))
    full = generator.synthesize(w_plus)
    averaged = torch.nn.functional.avg_pool2d(full, 4)
    torch.testing.assert_close(generator.synthesize(w_plus, size=generator.resolution // 4), averaged)


def test_synthesis_gradient_matches_finite_differences():
    generator = tiny_mobile().double()
    w_plus = generator.map(torch.randn(1, generator.z_dim, dtype=torch.double)).requires_grad_(True)
    direction = torch.randn_like(w_plus)
    probe = torch.randn(1, 3, generator.resolution, generator.resolution, dtype=torch.double)
    (gradient,) = torch.autograd.grad((generator.synthesize(w_plus) * probe).sum(), w_plus)
    step = 1e-7
    with torch.no_grad():
        high, low = generator.synthesize(w_plus + step * direction), generator.synthesize(w_plus - step * direction)
    expected = ((high - low) * probe).sum() / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-3, atol=1e-5)


def test_synthesis_does_not_change_its_input():
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(1, generator.z_dim))
    before = w_plus.clone()
    generator.synthesize(w_plus)
    assert torch.equal(w_plus, before)


def test_codes_of_another_shape_are_refused():
    generator = tiny_mobile()
    with pytest.raises(ValueError, match=r"w_plus should have shape \(N, 14, 16\)"):
        generator.synthesize(torch.zeros(1, 18, 16))


def test_missing_tensors_are_named():
    state = tiny_mobile_state()
    del state["layers.1.conv2.bias"]
    with pytest.raises(ValueError, match=r"layers\.1\.conv2\.bias"):
        MobileStyleGAN(state, family="x", generator_id="x")


def test_written_generator_reads_back_equal(tmp_path):
    state = tiny_mobile_state()
    path, source = tmp_path / "tiny.safetensors", tmp_path / "source"
    source.write_bytes(b"original")
    write_generator(state, path, family="tiny", architecture="mobile_stylegan", source=source)
    generator, original = read_generator(path), MobileStyleGAN(state, family="tiny", generator_id="")
    w_plus = original.map(torch.randn(1, 16))
    assert torch.equal(generator.synthesize(w_plus), original.synthesize(w_plus))
    assert generator.family == "tiny" and len(list(tmp_path.iterdir())) == 2


def test_proxy_is_the_best_linear_read_out_at_its_code_and_has_gradients():
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(1, generator.z_dim))
    proxy = local_proxies(generator, w_plus, [32])[32]
    with torch.no_grad():
        residual = (proxy(w_plus) - generator.synthesize(w_plus, size=32))[0].flatten(1)
        maps = generator.feature_maps(w_plus, size=32)[0].flatten(1)
    correlation = residual @ maps.T / (residual.norm(dim=1)[:, None] * maps.norm(dim=1))
    assert float(correlation.abs().max()) < 1e-2
    codes = w_plus.clone().requires_grad_(True)
    proxy(codes).square().mean().backward()
    assert codes.grad is not None and float(codes.grad.abs().sum()) > 0


def test_exact_pictures_are_the_generators_own_also_after_the_weights_moved():
    generator = tiny_mobile()
    codes = generator.map(torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(1)))
    pictures, stale = exact_pictures(generator, 32), local_proxies(generator, codes[:1], [32])[32]
    with torch.no_grad():
        for weight in generator.tunable_parameters(32).values():
            weight.mul_(1.2)
        moved, wanted = codes + 0.1, generator.synthesize(codes + 0.1, size=32)
        torch.testing.assert_close(pictures(moved), wanted, rtol=1e-5, atol=1e-5)
        assert float((stale(moved) - wanted).abs().max()) > 1e-2


def test_gradients_of_exact_pictures_lead_where_those_of_the_generator_lead():
    generator, random = tiny_mobile(), torch.Generator().manual_seed(5)
    code, other = generator.map(torch.randn(2, generator.z_dim, generator=random)).split(1)
    weight = next(iter(generator.tunable_parameters(32).values())).requires_grad_(True)
    with torch.no_grad():
        target = generator.synthesize(other, size=32)

    def gradients(pictures):
        asked = code.clone().requires_grad_(True)
        loss = (pictures(asked) - target).square().mean()
        return loss, torch.autograd.grad(loss, (asked, weight))

    loss, cheap = gradients(exact_pictures(generator, 32))
    wanted_loss, wanted = gradients(lambda asked: generator.synthesize(asked, size=32))
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-4, atol=1e-6)
    rows_before = 3 * 3  # of the three layers up to 32 px; rows behind them have no gradient
    assert not cheap[0][:, rows_before:].any()
    pairs = [(cheap[0][:, :rows_before], wanted[0][:, :rows_before]), (cheap[1], wanted[1])]
    for found, exact in pairs:
        assert float(torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0)) > 0.7


class _Plain:
    """A generator that only makes pictures."""

    resolution = 64

    def synthesize(self, w_plus, *, size):
        return torch.sin(w_plus.sum()) * torch.ones(len(w_plus), 3, size, size)


def test_a_generator_without_feature_maps_stands_in_for_itself():
    code, plain = torch.full((1, 4, 8), 0.3), _Plain()
    for pictures in (exact_pictures(plain, 32), local_proxies(plain, code, [32])[32]):
        assert torch.equal(pictures(code), plain.synthesize(code, size=32))


def test_stylegan2_has_stand_ins_and_exact_pictures_with_their_gradients():
    network = random_network(64)
    codes = network.map(torch.randn(2, network.z_dim, generator=torch.Generator().manual_seed(2)))
    wanted = network.synthesize(codes, size=32)
    proxy = local_proxies(network, codes[:1], [32])[32]
    assert float((proxy(codes) - wanted).abs().max()) > 0
    asked = codes.clone().requires_grad_(True)
    pictures = exact_pictures(network, 32)(asked)
    torch.testing.assert_close(pictures.detach(), wanted, rtol=1e-4, atol=1e-5)
    pictures.square().mean().backward()
    assert float(asked.grad.abs().sum()) > 0
    assert not asked.grad[:, -1].any(), "the last rows act behind the feature maps"


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_the_picture_follows_from_the_feature_maps_of_every_size(size):
    generator = tiny_mobile()
    code = generator.map(torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(2)))
    maps = generator.feature_maps(code, size=size)
    assert torch.equal(generator.from_feature_maps(maps, code), generator.synthesize(code))


def test_ir_constants_come_back_in_order(tmp_path):
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([7.0])}
    constants = read_constants(_write_ir(tmp_path, arrays))
    assert list(constants) == ["b", "a"]
    np.testing.assert_array_equal(constants["b"], arrays["b"])


def test_truncated_ir_is_refused_by_name(tmp_path):
    path = _write_ir(tmp_path, {"weights": np.zeros((4, 4), np.float32)}, truncate=8)
    with pytest.raises(ValueError, match="'weights'.*truncated"):
        read_constants(path)


def test_ir_with_entities_is_refused(tmp_path):
    path = _write_ir(tmp_path, {"weights": np.zeros(9, np.float32)})
    path.write_text('<!DOCTYPE net [<!ENTITY a "b">]>' + path.read_text())
    with pytest.raises(ValueError, match="entities"):
        read_constants(path)


@pytest.mark.weights
def test_default_generator_has_the_known_shape_and_a_stable_hash():
    generator = load_generator()
    assert (generator.num_ws, generator.w_dim, generator.resolution) == (23, 512, 1024)
    assert generator.generator_id == "57f8adc61668a386"


@pytest.mark.weights
def test_default_generator_proxy_is_close_at_256():
    generator = load_generator()
    random = torch.Generator().manual_seed(3)
    w_plus = generator.map(torch.randn(1, 512, generator=random), truncation_psi=0.7)
    with torch.no_grad():
        error = local_proxies(generator, w_plus, [256])[256](w_plus) - generator.synthesize(w_plus, size=256)
    assert float(error.square().mean()) / 4 < 1e-3


@pytest.mark.weights
def test_default_generator_equals_the_openvino_runtime():
    openvino = pytest.importorskip("openvino", reason="needs openvino, which only this comparison uses")
    generator = load_generator()
    synthesis, mapping = find_model(GENERATOR), find_model(GENERATOR).with_name("MappingNetwork.xml")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    z = torch.randn(1, 512, generator=torch.Generator().manual_seed(4))
    w = torch.from_numpy(next(iter(core.compile_model(mapping, "CPU", settings)([z.numpy()]).values())))
    w_plus = generator.map(z)
    assert_close(w_plus[:, 0], w.reshape(1, 512), 1e-5, against=OPENVINO)
    network = core.compile_model(synthesis, "CPU", settings)
    code = w_plus.numpy() if network.inputs[0].partial_shape.rank.get_length() == 3 else w_plus[:, 0].numpy()
    with torch.no_grad():
        picture = torch.from_numpy(next(iter(network([code]).values())))
        assert_close(generator.synthesize(w_plus), picture, 2e-4, against=OPENVINO)


def test_the_hash_of_the_weights_leaves_out_the_mean_code_which_processors_measure_differently():
    state = tiny_mobile_state()
    measured_elsewhere = state | {"w_avg": state["w_avg"] * (1 + 1e-6)}
    other_weights = state | {"const": state["const"] * (1 + 1e-6)}
    assert not torch.equal(measured_elsewhere["w_avg"], state["w_avg"])
    assert state_id(measured_elsewhere) == state_id(state) != state_id(other_weights)
