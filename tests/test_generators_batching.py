"""Batches that shrink when memory runs out, and compiling that never gets in the way."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from tiny_generators import tiny_mobile
from torch import Tensor

from dynode_pack.dynode_core.generators import batching
from dynode_pack.dynode_core.generators.compiled import OptionalCompile
from dynode_pack.dynode_core.generators.stylegan2 import StyleGAN2
from dynode_pack.dynode_core.generators.stylegan2_config import StyleGAN2Config, expected_shapes
from dynode_pack.dynode_core.rendering import render


def random_network(resolution: int, num_fp16_res: int = 0) -> StyleGAN2:
    config = StyleGAN2Config(z_dim=8, w_dim=8, resolution=resolution, mapping_layers=2, num_fp16_res=num_fp16_res)
    channels = {res: 4 for res in config.block_resolutions}
    source = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=source) for name, shape in expected_shapes(config, channels).items()}
    return StyleGAN2(state, config, family="test", generator_id="0")


class SmallMemory(StyleGAN2):
    """Runs out of memory for more than `room` images, as a device would."""

    room = 3

    def synthesize(self, w_plus: Tensor, **options: object) -> Tensor:  # type: ignore[override]
        if len(w_plus) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().synthesize(w_plus, **options)  # type: ignore[arg-type]


def codes(generator: StyleGAN2, count: int) -> Tensor:
    return generator.map(torch.randn(count, 8, generator=torch.Generator().manual_seed(1)))


def test_batches_hold_every_image_in_order() -> None:
    generator = random_network(16)
    w_plus = codes(generator, 5)
    whole = generator.synthesize(w_plus)
    for batch in (1, 2, 8, None):
        images = list(batching.synthesize_batches(generator, w_plus, batch=batch))
        assert torch.allclose(torch.cat(images), whole, atol=1e-5)


def test_batch_is_halved_when_memory_runs_out() -> None:
    generator = random_network(16)
    generator.__class__ = SmallMemory
    w_plus = codes(generator, 9)
    images = list(batching.synthesize_batches(generator, w_plus, batch=8))
    assert [len(part) for part in images] == [2, 2, 2, 2, 1]
    assert torch.allclose(torch.cat(images)[:3], generator.synthesize(w_plus[:3]), atol=1e-5)


def test_not_even_one_image_fits() -> None:
    generator = random_network(16)
    generator.__class__ = type("NoMemory", (SmallMemory,), {"room": 0})
    with pytest.raises(torch.OutOfMemoryError):
        list(batching.synthesize_batches(generator, codes(generator, 2), batch=2))


def test_compiling_that_fails_costs_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function: object, **options: object) -> object:
        def call(*args: object) -> None:
            raise RuntimeError("Compiler: cl is not found.\nlong story")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    generator = random_network(16)
    w_plus = codes(generator, 1)
    eager = generator.synthesize(w_plus)
    generator.compile_synthesis()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(generator.synthesize(w_plus), eager)
        assert torch.equal(generator.synthesize(w_plus), eager)
        assert torch.equal(copy.deepcopy(generator).synthesize(w_plus), eager)  # as a tuned one is
    assert len(caplog.records) == 1 and "cl is not found" in caplog.text and "long story" not in caplog.text


def test_error_of_the_call_itself_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)

    def function(x: int) -> int:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        OptionalCompile(function)(1)


@pytest.mark.slow
def test_compiled_generator_draws_the_same_and_can_be_copied() -> None:
    generator = random_network(16)
    w_plus = codes(generator, 1)
    with torch.no_grad():
        eager = generator.synthesize(w_plus)
        compiled = []

        def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
            compiled.append(graph)
            return graph.forward

        generator.compile_synthesis(backend=backend)
        assert torch.allclose(generator.synthesize(w_plus), eager, atol=1e-5)
        count = len(compiled)
        assert count > 0
        assert generator._compiled is not None and not generator._compiled.is_eager
        twin = copy.deepcopy(generator)
        twin.synthesis.b4.const.mul_(2)
        assert not torch.allclose(twin.synthesize(w_plus), eager, atol=1e-5)
        assert torch.allclose(generator.synthesize(w_plus), eager, atol=1e-5)
        assert len(compiled) == count


@pytest.mark.gpu
def test_half_precision_on_the_gpu_stays_near_single_precision() -> None:
    generator = random_network(64, num_fp16_res=4).cuda()
    w_plus = codes(random_network(64), 2).cuda()
    with torch.no_grad():
        half = generator.synthesize(w_plus)
        generator.half_precision = "never"
        single = generator.synthesize(w_plus)
    assert (half - single).abs().mean() < single.std() / 255
    images = list(batching.synthesize_batches(generator, w_plus))
    assert torch.allclose(torch.cat(images), single.cpu(), atol=1e-3)


@pytest.mark.slow
def test_the_small_generator_is_compiled_too_and_keeps_its_gradients() -> None:
    generator = tiny_mobile()
    w_plus = generator.map(torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(1)))
    leaves = [w_plus.clone().requires_grad_() for _ in range(2)]
    generator.synthesize(leaves[0]).square().mean().backward()
    generator.compile_synthesis(backend="aot_eager")
    generator.synthesize(leaves[1]).square().mean().backward()
    assert leaves[0].grad is not None and leaves[1].grad is not None
    assert torch.allclose(leaves[0].grad, leaves[1].grad, atol=1e-6)
    assert generator._compiled is not None and not generator._compiled.is_eager


def test_faces_are_rendered_in_batches_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random_network(16)
    generator.__class__ = SmallMemory
    w_plus = codes(generator, 7)
    each = torch.cat([generator.synthesize(part) for part in w_plus.split(1)])
    monkeypatch.setattr(batching, "batch_that_fits", lambda generator: 8)
    assert torch.allclose(render(generator, w_plus), each, atol=1e-5)
