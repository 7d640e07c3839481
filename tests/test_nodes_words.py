"""Edit By Text with ComfyUI's own CLIP and CLIP Vision classes, small and with random weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.types import EditedLatent

pytestmark = pytest.mark.comfy
NodeModule = Callable[[str], ModuleType]
WIDTH = 32
LAYER = {"hidden_act": "quick_gelu", "hidden_size": WIDTH, "intermediate_size": 48, "num_attention_heads": 2}
VISION = LAYER | {
    "num_hidden_layers": 2, "image_size": 32, "patch_size": 8, "num_channels": 3, "projection_dim": WIDTH,
    "model_type": "clip_vision_model",
}  # fmt: skip
TEXT = LAYER | {
    "num_hidden_layers": 2, "max_position_embeddings": 77, "eos_token_id": 49407, "vocab_size": 49408,
}  # fmt: skip


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights: ComfyUI's layers leave theirs as the memory was."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            norm = name.endswith("weight") and weight.ndim == 1
            weight.copy_(torch.randn(weight.shape, generator=random) * (0.02 if norm else 0.2) + float(norm))


@pytest.fixture(scope="module")
def clip_vision(node_module: NodeModule) -> Any:
    node_module("devices")
    import comfy.clip_vision

    with torch.inference_mode():  # as the loader node does it
        model = comfy.clip_vision.ClipVisionModel(VISION)
        fill(model.model, 1)
    return model


@pytest.fixture(scope="module")
def clip(node_module: NodeModule) -> Any:
    node_module("devices")
    import comfy.sd
    import comfy.sd1_clip

    def inner(device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> torch.nn.Module:
        return comfy.sd1_clip.SD1CheckpointClipModel(
            device, dtype, {**(model_options or {}), "clip_l_model_config": TEXT}
        )

    target = SimpleNamespace(
        params={},
        clip=functools.partial(comfy.sd1_clip.SD1ClipModel, clip_model=inner),
        tokenizer=comfy.sd1_clip.SD1Tokenizer,
    )
    with torch.inference_mode():
        model = comfy.sd.CLIP(target)
        fill(model.cond_stage_model, 2)
    return model


@pytest.fixture(scope="module")
def loaded(node_module: NodeModule) -> Any:
    return node_module("devices").hold_generator(tiny_mobile())


@pytest.fixture
def latent(loaded: Any) -> EditedLatent:
    generator = loaded.resting
    code = generator.map(torch.randn(1, 16, generator=torch.Generator().manual_seed(2)), truncation_psi=0.4)[0]
    return EditedLatent(code, code, (), generator.family)


def run(node_module: NodeModule, latent: Any, loaded: Any, clip: Any, clip_vision: Any, **changed: Any) -> Any:
    options = {
        "text": "a face with a beard", "neutral_text": "a face", "seed": 0, "strength": 1.0, "steps": 12,
        "distance": 0.0, "identity": 0.0, "layers": "all", "learning_rate": 0.1, "views": 2,
    }  # fmt: skip
    with torch.inference_mode():
        node = node_module("words").EditByText
        return node.execute(latent, loaded, clip, clip_vision, **(options | changed)).result


def test_the_schema_holds(node_module) -> None:
    inputs = {entry.id for entry in node_module("words").EditByText.GET_SCHEMA().inputs}
    assert {"latent", "generator", "clip", "clip_vision", "text", "neutral_text", "seed", "distance"} <= inputs


def test_the_code_follows_the_words(node_module, latent, loaded, clip, clip_vision) -> None:
    edited, picture, report = run(node_module, latent, loaded, clip, clip_vision)
    before, after = (float(word) for word in report.replace(",", " ").split() if word.lstrip("-")[:2] in ("0.", "1."))
    assert after > before + 0.01
    assert edited.edits == ("a face with a beard=1",) and picture.shape == (1, 128, 256, 3)
    assert not edited.w_plus_0.is_inference() and not torch.equal(edited.w_plus_0, latent.w_plus_0)


def test_other_words_lead_elsewhere_and_the_models_stay_as_they_were(
    node_module, latent, loaded, clip, clip_vision
) -> None:
    weights = [p.clone() for p in (*clip_vision.model.parameters(), *clip.cond_stage_model.parameters())]
    one = run(node_module, latent, loaded, clip, clip_vision, steps=4)[0]
    same = run(node_module, latent, loaded, clip, clip_vision, steps=4)[0]
    other = run(node_module, latent, loaded, clip, clip_vision, steps=4, text="an old face")[0]
    assert torch.equal(one.w_plus_0, same.w_plus_0) and not torch.equal(one.w_plus_0, other.w_plus_0)
    after = (*clip_vision.model.parameters(), *clip.cond_stage_model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))


def test_pictures_are_embedded_as_comfyui_embeds_them(node_module, clip_vision) -> None:
    pictures = (torch.randint(0, 256, (2, 48, 48, 3), generator=torch.Generator().manual_seed(0)) / 255).float()
    with torch.inference_mode():
        wanted = clip_vision.encode_image(pictures)["image_embeds"]
    got = node_module("clip_encoders").image_embedder(clip_vision)(pictures.permute(0, 3, 1, 2) * 2 - 1)
    cosine = torch.nn.functional.cosine_similarity(got, wanted.clone())
    assert float(cosine.min()) > 0.999  # ComfyUI rounds the resized picture to 8 bits


def test_gradients_through_comfyuis_clip_are_right(node_module, clip_vision) -> None:
    """Its layers add in place, which would spoil them."""
    embed = node_module("clip_encoders").image_embedder(clip_vision)
    random = torch.Generator().manual_seed(4)
    image = (torch.rand(1, 3, 32, 32, generator=random) - 0.5).requires_grad_(True)
    way = torch.nn.functional.interpolate(torch.randn(1, 3, 4, 4, generator=random), 32, mode="bilinear")
    weights = torch.randn(WIDTH, generator=random)
    (gradient,) = torch.autograd.grad((embed(image) * weights).sum(), [image])
    with torch.no_grad():
        step = 2e-3
        measured = float(((embed(image + step * way) - embed(image - step * way)) * weights).sum() / (2 * step))
    assert float((gradient * way).sum()) == pytest.approx(measured, rel=0.02)


def test_a_text_is_embedded_with_its_projection(node_module, clip) -> None:
    encoders = node_module("clip_encoders")
    got = encoders.text_embedding(clip, "a face")
    clip.cond_stage_model.reset_clip_options()
    clip.cond_stage_model.set_clip_options({"projected_pooled": True})
    with torch.no_grad():
        wanted = clip.cond_stage_model.encode_token_weights(clip.tokenize("a face"))[1][0]
    torch.testing.assert_close(got, wanted.float())


@pytest.mark.parametrize("stand_in", ["zeros", "identity", "garbage"])
def test_a_text_encoder_without_projection_is_refused(node_module, clip, stand_in: str) -> None:
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    kept = weight.clone()
    nothing = torch.zeros(WIDTH, WIDTH)
    other = {"zeros": nothing, "identity": torch.eye(WIDTH), "garbage": nothing + torch.nan}
    try:
        with torch.inference_mode():
            weight.copy_(other[stand_in])
        with pytest.raises(ValueError, match="without its text projection.*clip-vit-large-patch14"):
            node_module("clip_encoders").text_embedding(clip, "a face")
    finally:
        with torch.inference_mode():
            weight.copy_(kept)


def test_what_cannot_work_is_refused(node_module, latent, loaded, clip, clip_vision) -> None:
    encoders = node_module("clip_encoders")
    with pytest.raises(ValueError, match="The text is empty"):
        encoders.text_embedding(clip, "  ")
    without = SimpleNamespace(model=SimpleNamespace(visual_projection=lambda a: a))
    with pytest.raises(ValueError, match="no projection"):
        encoders.image_embedder(without)
    node = node_module("words").EditByText
    assert node.validate_inputs(text=" ") != True and node.validate_inputs(text="x", layers="all") is True  # noqa: E712
    assert "layers" in str(node.validate_inputs(layers="0-"))


def test_cancelling_comes_through(node_module, latent, loaded, clip, clip_vision) -> None:
    management = node_module("pictures").comfy.model_management
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run(node_module, latent, loaded, clip, clip_vision)
