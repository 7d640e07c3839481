"""Sample Latents and Mix Latents between the generator, the edit and the render node."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_generators import tiny_stylegan2

from dynode_pack.dynode_core.types import TrajectorySample

pytestmark = pytest.mark.comfy
NodeModule = Callable[[str], ModuleType]
BIRDS = "stylegan2-bird-64x10"


@pytest.fixture(scope="module")
def loaded(node_module: NodeModule) -> Any:
    return node_module("devices").hold_generator(tiny_stylegan2(64, BIRDS))


def sample(
    node_module: NodeModule, loaded: Any, seed: int, count: int, **others: Any
) -> tuple[list[Any], torch.Tensor]:
    options = {"truncation_psi": 0.7, "size": "full", "truncation_cutoff": 0, "class_index": 0, **others}
    latents, images = node_module("latents").SampleLatents.execute(loaded, seed, count, **options).result
    return latents, images


def test_seeds_give_a_code_and_a_picture_each(node_module: NodeModule, loaded: Any) -> None:
    latents, images = sample(node_module, loaded, 5, 3)
    assert [latent.w_plus_0.shape for latent in latents] == [(10, 16)] * 3 and images.shape == (3, 64, 64, 3)
    assert float(images.min()) >= 0 and float(images.max()) <= 1 and float(images.std()) > 0.01
    again, same = sample(node_module, loaded, 6, 1)
    assert torch.allclose(again[0].w_plus_0, latents[1].w_plus_0) and torch.allclose(same[0], images[1], atol=1e-5)
    assert not latents[0].w_plus_0.is_inference()


def test_size_is_at_most_what_the_generator_makes(node_module: NodeModule, loaded: Any) -> None:
    assert sample(node_module, loaded, 5, 1, size="512")[1].shape == (1, 64, 64, 3)


def test_too_many_pictures_are_refused_with_advice_that_the_node_offers(
    node_module: NodeModule, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    management = node_module("pictures").comfy.model_management
    monkeypatch.setattr(management, "get_free_memory", lambda *_, **__: 2**20)
    with pytest.raises(
        ValueError, match="64 frames of 64 x 64 as an IMAGE need .* Use a smaller count or size"
    ) as told:
        sample(node_module, loaded, 5, 64)
    assert "picture_frames" not in str(told.value) and "clip" not in str(told.value)


def test_psi_zero_is_the_mean_picture_of_all_seeds(node_module: NodeModule, loaded: Any) -> None:
    _, images = sample(node_module, loaded, 5, 2, truncation_psi=0.0)
    torch.testing.assert_close(images[0], images[1])
    _, cut = sample(node_module, loaded, 5, 2, truncation_psi=0.0, truncation_cutoff=2)
    assert not torch.allclose(cut[0], cut[1])


def test_the_last_seed_is_followed_by_the_first(node_module: NodeModule, loaded: Any) -> None:
    latents, _ = sample(node_module, loaded, 2**32 - 1, 2)
    assert torch.allclose(latents[1].w_plus_0, sample(node_module, loaded, 0, 1)[0][0].w_plus_0)


def test_render_draws_a_single_code_as_sampled(node_module: NodeModule, loaded: Any) -> None:
    latents, images = sample(node_module, loaded, 5, 1)
    faces, drawn = node_module("render").Render.execute(latents[0], loaded, "full", 1, "all frames").result
    assert faces.num_frames == 1
    torch.testing.assert_close(drawn, images, rtol=0, atol=1e-4)


def test_mix_and_morph_are_drawn_from_one_to_the_other(node_module: NodeModule, loaded: Any) -> None:
    (a, b), images = sample(node_module, loaded, 5, 2)
    mixed, morph = node_module("latents").MixLatents.execute(a, b, 0.5, "all", 4, 12.0).result
    assert isinstance(morph, TrajectorySample) and float(morph.fps) == 12 and len(morph.times) == 4
    torch.testing.assert_close(mixed.w_plus_0, (a.w_plus_0 + b.w_plus_0) / 2)
    film = node_module("latents").MixLatents.execute(a, b, 0.5, "all", 4, 23.976).result[1]
    assert film.fps == Fraction(24000, 1001)
    _, drawn = node_module("render").Render.execute(morph, loaded, "full", 2, "all frames").result
    torch.testing.assert_close(drawn[[0, 3]], images, rtol=0, atol=1e-4)


def test_edit_first_latent_takes_a_sampled_code_and_refuses_directions_of_faces(
    node_module: NodeModule, loaded: Any
) -> None:
    edit = node_module("edit").EditFirstLatent
    (latent,), _ = sample(node_module, loaded, 5, 1)
    edited, preview, report = edit.execute(latent, loaded, "none", 2.0, "all", 1.0).result
    assert report.startswith("edits: none")
    assert torch.equal(edited.w_plus_0, latent.w_plus_0) and preview.shape == (1, 64, 128, 3)
    with pytest.raises(ValueError, match="width"):
        edit.execute(latent, loaded, "smile", 2.0, "all", 1.0)


def test_bad_layers_are_refused_before_anything_runs(node_module: NodeModule) -> None:
    validate = node_module("latents").MixLatents.validate_inputs
    assert validate(layers="0-3") is True and "layers should be" in validate(layers="some")


def test_latents_are_a_list_so_that_each_is_edited(node_module: NodeModule) -> None:
    info = node_module("latents").SampleLatents.GET_NODE_INFO_V1()
    assert info["output_is_list"] == [True, False] and info["output_name"] == ["latents", "images"]
