"""StyleGAN2 against the numbers of the original implementations, and its two implementations against each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parity import OWN, assert_close
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from dynode_pack.dynode_core.generators import Generator, ops, ops_reference
from dynode_pack.dynode_core.generators.stylegan2 import StyleGAN2
from dynode_pack.dynode_core.generators.stylegan2_config import StyleGAN2Config, expected_shapes

Golden = Callable[[str], Path]

NETWORKS = ["nv_sg2_r32", "nv_sg2_r64_clamp256", "nv_sg2_r32_clamp1p5", "nv_sg2_r16_cond_mapping2"]
ARCHITECTURES = ["nv_sg2_r16_arch_orig", "nv_sg2_r16_arch_resnet"]
IMPLEMENTATIONS = ["reference", "fast"]


def read_network(path: Path, implementation: str = "fast") -> tuple[StyleGAN2, dict[str, Tensor]]:
    data = load_file(path)
    with safe_open(path, "pt") as file:
        kwargs = json.loads(file.metadata()["kwargs"])
    config = StyleGAN2Config(
        z_dim=kwargs["z_dim"],
        c_dim=kwargs["c_dim"],
        w_dim=kwargs["w_dim"],
        resolution=kwargs["img_resolution"],
        mapping_layers=kwargs["mapping_kwargs"].get("num_layers", 8),
        architecture=kwargs["synthesis_kwargs"].get("architecture", "skip"),
        conv_clamp=kwargs["synthesis_kwargs"].get("conv_clamp"),
    )
    state = {name.removeprefix("weights."): value for name, value in data.items() if name.startswith("weights.")}
    generator = StyleGAN2(state, config, family="test", generator_id="0", implementation=implementation)
    return generator, data


def random_network(resolution: int, *, seed: int = 0, width: int = 16, **options: object) -> StyleGAN2:
    config = StyleGAN2Config(z_dim=16, w_dim=16, resolution=resolution, mapping_layers=2, **options)  # type: ignore[arg-type]
    channels = {res: max(4, width * 16 // max(res, 16)) for res in config.block_resolutions}
    source = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=source) for name, shape in expected_shapes(config, channels).items()}
    for name in state:
        if name.endswith("affine.bias"):
            state[name] += 1
    return StyleGAN2(state, config, family="test", generator_id="0")


@pytest.fixture(scope="module")
def op_data(golden: Golden) -> dict[str, Tensor]:
    return load_file(golden("nv_ops.safetensors"))


def test_resampling_by_definition(op_data: dict[str, Tensor]) -> None:
    x, fir = op_data["x"], ops_reference.make_filter()
    skewed = ops_reference.make_filter((1, 2, 4, 3))
    results = {
        "setup_filter.1331": fir,
        "setup_filter.asym": skewed,
        "upsample2d": ops_reference.upsample2d(x, fir),
        "downsample2d": ops_reference.downsample2d(x, fir),
        "filter2d": ops_reference.filter2d(x, fir),
        "upfirdn2d.asym_flip": ops_reference.upfirdn2d(x, skewed, padding=(1, 2, 1, 2), flip_filter=True),
        "upfirdn2d.asym_up2_pad": ops_reference.upfirdn2d(x, skewed, up=2, padding=(2, 1, 1, 0), gain=4),
        "upfirdn2d.asym_down2_negpad": ops_reference.upfirdn2d(x, skewed, down=2, padding=(1, -1, 0, 2)),
    }
    for name, result in results.items():
        assert_close(result, op_data[name], 1e-5)


def test_bias_and_activations_by_definition(op_data: dict[str, Tensor]) -> None:
    x, bias = op_data["x"], op_data["b"]
    for name in ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"):
        assert_close(ops_reference.bias_act(x, bias, name), op_data[f"bias_act.{name}"], 1e-5)
    limited = ops_reference.bias_act(x, bias, "lrelu", gain=0.7, clamp=0.5)
    assert_close(limited, op_data["bias_act.lrelu_gain0.7_clamp0.5"], 1e-5)
    second_moment = ops_reference.normalize_2nd_moment(op_data["normalize_2nd_moment.in"])
    assert_close(second_moment, op_data["normalize_2nd_moment"], 1e-5)


def test_convolutions_by_definition(op_data: dict[str, Tensor]) -> None:
    x, w, w1, styles = (op_data[name] for name in ("x", "w", "w1x1", "styles"))
    fir, skewed = ops_reference.make_filter(), ops_reference.make_filter((1, 2, 4, 3))
    resample, modulated = ops_reference.conv2d_resample, ops_reference.modulated_conv2d
    results = {
        "conv2d_resample.1x1_down2": resample(x, w1, fir, down=2),
        "conv2d_resample.1x1_up2": resample(x, w1, fir, up=2),
        "conv2d_resample.down2": resample(x, w, fir, down=2, padding=1),
        "conv2d_resample.up2_asym": resample(x, w, skewed, up=2, padding=1, flip_weight=False),
        "conv2d_resample.up2_flipweightFalse": resample(x, w, fir, up=2, padding=1, flip_weight=False),
        "modulated_conv2d.demod": modulated(x, w, styles),
        "modulated_conv2d.nodemod_1x1": modulated(x, w1, styles, demodulate=False),
        "modulated_conv2d.demod_up2_noise": modulated(x, w, styles, up=2, fir=fir, noise=op_data["noise16"]),
    }
    for name, result in results.items():
        assert_close(result, op_data[name], 1e-5)
    assert_close(ops_reference.transposed_conv2d_up2(x, w, fir), op_data["conv2d_resample.up2_flipweightFalse"], 1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_images_equal_those_of_nvidia(golden: Golden, name: str, implementation: str) -> None:
    generator, data = read_network(golden(f"{name}.safetensors"), implementation)
    w_plus = data["in.wplus"]
    assert_close(generator.synthesize(w_plus), data["out.img_const"])
    assert_close(generator.synthesize(w_plus, noise_mode="none"), data["out.img_none"])
    for row in range(len(w_plus)):
        assert_close(generator.synthesize(w_plus[row : row + 1]), data["out.img_const"][row : row + 1])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_other_architectures_equal_those_of_nvidia(golden: Golden, name: str, implementation: str) -> None:
    generator, data = read_network(golden(f"{name}.safetensors"), implementation)
    assert_close(generator.synthesize(data["in.wplus"]), data["out.img_const"])


@pytest.mark.parametrize("name", NETWORKS)
def test_codes_equal_those_of_nvidia(golden: Golden, name: str) -> None:
    generator, data = read_network(golden(f"{name}.safetensors"))
    z, label = data["in.z"], data.get("in.c")
    assert_close(generator.map(z, label=label), data["out.ws_psi1"])
    assert_close(generator.map(z, label=label, truncation_psi=0.7), data["out.ws_psi0.7_cutoffNone"])
    cut = generator.map(z, label=label, truncation_psi=0.5, truncation_cutoff=4)
    assert_close(cut, data["out.ws_psi0.5_cutoff4"])
    image = generator.synthesize(generator.map(z, label=label, truncation_psi=0.7))
    assert_close(image, data["out.img_from_z_psi0.7"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_block_equals_that_of_nvidia(golden: Golden, implementation: str) -> None:
    generator, data = read_network(golden("nv_sg2_r32.safetensors"), implementation)
    w_plus, x, image = data["in.wplus"], None, None
    for i, block in enumerate(generator.synthesis.blocks):
        noise = [layer.noise(2, "const", None) for layer in block.layers]
        x, image = generator._block(block, x, image, generator._rows(w_plus, i), noise)
        assert_close(x, data[f"act.b{block.resolution}.x"])
        assert_close(image, data[f"act.b{block.resolution}.img"])
        assert_close(generator.feature_maps(w_plus, size=block.resolution), data[f"act.b{block.resolution}.x"])
        for row, layer in enumerate([*block.layers, block.torgb]):
            name = "torgb" if layer is block.torgb else ("conv1" if block.is_first else f"conv{row}")
            style = layer.affine(generator._rows(w_plus, i)[:, row])
            assert_close(style, data[f"style.b{block.resolution}.{name}"])


def test_generator_fulfils_the_protocol(golden: Golden) -> None:
    generator, _ = read_network(golden("nv_sg2_r32.safetensors"))
    assert isinstance(generator, Generator)
    assert (generator.num_ws, generator.w_dim, generator.z_dim, generator.resolution) == (8, 32, 32, 32)
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert not generator.training


def test_smaller_size_is_the_full_picture_averaged(golden: Golden) -> None:
    generator, data = read_network(golden("nv_sg2_r32.safetensors"))
    full = generator.synthesize(data["in.wplus"])
    half = generator.synthesize(data["in.wplus"], size=16)
    assert_close(half, full.reshape(2, 3, 16, 2, 16, 2).mean(dim=(3, 5)), 1e-6, against=OWN)
    with pytest.raises(ValueError, match="should divide"):
        generator.synthesize(data["in.wplus"], size=24)


def test_random_noise_is_the_same_for_the_same_seed() -> None:
    generator = random_network(32)
    w_plus = generator.map(torch.randn(2, 16, generator=torch.Generator().manual_seed(1)))

    def draw(seed: int) -> Tensor:
        return generator.synthesize(w_plus, noise_mode="random", generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    with pytest.raises(ValueError, match="noise_mode"):
        generator.synthesize(w_plus, noise_mode="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"conv_clamp": 0.5}, {"architecture": "resnet"}, {"architecture": "orig"}])
def test_gradients_of_both_implementations_agree(options: dict[str, object]) -> None:
    generator = random_network(32, **options)
    w_plus = generator.map(torch.randn(2, 16, generator=torch.Generator().manual_seed(1)))
    weight = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    gradients = []
    for implementation in ("reference", "fast"):
        generator.implementation = implementation  # type: ignore[assignment]
        leaf = w_plus.clone().requires_grad_()
        (generator.synthesize(leaf) * weight).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert_close(gradients[1], gradients[0], against=OWN)


def test_gradient_of_a_style_of_zero_is_right() -> None:
    source = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 4, 8, 8, generator=source), torch.randn(5, 4, 3, 3, generator=source)
    bias, out = torch.randn(5, generator=source), torch.randn(1, 5, 8, 8, generator=source)
    gradients = []
    for fast in (False, True):
        styles = torch.tensor([[0.0, 1.0, -2.0, 0.5]], requires_grad=True)
        if fast:
            squared = weight.square().sum(dim=(2, 3))
            y = ops.styled_convolution(x, weight, styles, squared, bias, None, None, gain=1.0, clamp=None)
        else:
            y = ops_reference.bias_act(ops_reference.modulated_conv2d(x, weight, styles), bias, "lrelu", gain=1.0)
        (y * out).sum().backward()
        assert styles.grad is not None
        gradients.append(styles.grad)
    assert_close(gradients[1], gradients[0], against=OWN)


def test_weights_can_be_tuned_and_both_implementations_agree() -> None:
    generator = random_network(16)
    w_plus = generator.map(torch.randn(1, 16, generator=torch.Generator().manual_seed(1)))
    gradients = []
    for implementation in ("reference", "fast"):
        generator.implementation = implementation  # type: ignore[assignment]
        generator.requires_grad_(True).zero_grad()
        generator.synthesize(w_plus).square().mean().backward()
        layer = generator.synthesis.b16.conv0
        gradients.append(
            [layer.weight.grad.clone(), layer.noise_strength.grad.clone(), layer.affine.weight.grad.clone()]
        )
    for fast, reference in zip(gradients[1], gradients[0], strict=True):
        assert_close(fast, reference, 1e-3, against=OWN)


def test_bands_of_rows_give_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random_network(128, conv_clamp=3.0)
    w_plus = generator.map(torch.randn(2, 16, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        whole = generator.synthesize(w_plus)
        monkeypatch.setattr(ops, "_STRIP_BYTES", 1)
        banded = generator.synthesize(w_plus)
    assert_close(banded, whole, 1e-5, against=OWN)


def test_small_image_upsampling_equals_the_definition() -> None:
    image = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    for taps in ((1, 3, 3, 1), (1, 2, 4, 3)):
        fir = ops_reference.make_filter(taps)
        assert_close(ops.upsample_image(image, fir), ops_reference.upsample2d(image, fir), 1e-5, against=OWN)


def test_half_precision_layers_stay_near_single_precision() -> None:
    generator = random_network(64, conv_clamp=256.0, num_fp16_res=3)
    w_plus = generator.map(torch.randn(1, 16, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        single = generator.synthesize(w_plus)
        generator.half_precision = "always"
        for implementation in ("reference", "fast"):
            generator.implementation = implementation  # type: ignore[assignment]
            half = generator.synthesize(w_plus)
            assert half.dtype == torch.float32
            scale = single.std()
            assert (half - single).abs().mean() < scale / 255


def test_inputs_stay_as_they_are(golden: Golden) -> None:
    generator, data = read_network(golden("nv_sg2_r32.safetensors"))
    w_plus = data["in.wplus"].clone()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.synthesize(w_plus)
    assert torch.equal(w_plus, data["in.wplus"])
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_generator_made_in_inference_mode_can_be_optimised_through() -> None:
    with torch.inference_mode():
        generator = random_network(16)
    leaf = torch.zeros(1, 6, 16, requires_grad=True)
    generator.synthesize(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().max() > 0


def test_missing_or_misshapen_weights_are_named(golden: Golden) -> None:
    generator, _ = read_network(golden("nv_sg2_r32.safetensors"))
    state = dict(generator.state_dict())
    without = {name: value for name, value in state.items() if name != "synthesis.b8.conv0.weight"}
    with pytest.raises(ValueError, match=r"lack 1 tensors.*b8\.conv0\.weight"):
        StyleGAN2(without, generator.config, family="test", generator_id="0")
    bent = {**state, "synthesis.b8.conv0.affine.bias": torch.zeros(7)}
    with pytest.raises(ValueError, match=r"affine\.bias should have shape \(32,\), but has shape \(7,\)"):
        StyleGAN2(bent, generator.config, family="test", generator_id="0")


@pytest.mark.parametrize("values", [{"resolution": 48}, {"architecture": "style"}, {"conv_clamp": -1.0}, {"w_dim": 0}])
def test_impossible_configuration_is_an_error(values: dict[str, object]) -> None:
    sizes = {"z_dim": 16, "w_dim": 16, "resolution": 16, "mapping_layers": 2, **values}
    with pytest.raises(ValueError):
        StyleGAN2Config(**sizes)  # type: ignore[arg-type]


def test_configuration_survives_its_text_form() -> None:
    config = StyleGAN2Config(z_dim=16, w_dim=16, resolution=64, mapping_layers=2, conv_clamp=256.0, num_fp16_res=4)
    assert StyleGAN2Config.from_json(config.to_json()) == config
    assert config.fp16_resolution == 8
    with pytest.raises(ValueError, match="no StyleGAN2 configuration"):
        StyleGAN2Config.from_json("{}")
