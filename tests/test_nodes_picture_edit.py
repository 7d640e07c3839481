"""Edit From Picture and Carry Texture between inversion and Blend Back."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from test_editing_picture import scene

from dynode_pack.dynode_core.editing import sample_of

pytestmark = [pytest.mark.comfy, pytest.mark.weights]
NodeModule = Callable[[str], ModuleType]
OPTIONS = {"strength": 1.0, "layers": "all", "quality": "draft", "frame": 0, "support": 2}


@pytest.fixture(scope="module")
def parts(node_module: NodeModule) -> tuple[Any, ...]:
    latent, _, aligned, generator, pictures = scene()
    pictures[1, 50:75, 50:75] = torch.tensor([0.9, 0.1, 0.1])  # what no code draws
    loaded = node_module("devices").hold_generator(generator)
    with torch.inference_mode():  # as ComfyUI does it
        result = node_module("picture_edit").EditFromPicture.execute(latent, loaded, aligned, pictures[1:], **OPTIONS)
    return latent, aligned, loaded, pictures, result.result


def test_the_schemas_hold(node_module: NodeModule) -> None:
    nodes = node_module("picture_edit").NODES
    assert [len(node.GET_SCHEMA().outputs) for node in nodes] == [5, 2]


def test_the_node_hands_out_edit_texture_pictures_and_report(parts: tuple[Any, ...]) -> None:
    latent, _, _, _, (edited, texture, preview, residual, report) = parts
    assert edited.edits[0].startswith("picture=1 (") and not edited.w_plus_0.is_inference()
    assert not torch.equal(edited.w_plus_0, latent.w_plus_0)
    assert preview.shape == (1, 128, 512, 3) and residual.shape == (1, 128, 128, 3)
    assert texture.alpha.shape == (1, 128, 128) and not texture.alpha.is_inference()
    assert "The generator expresses" in report


def test_the_texture_completes_the_rendered_face(parts: tuple[Any, ...], node_module: NodeModule) -> None:
    _, aligned, loaded, pictures, (edited, texture, *_) = parts
    sample = sample_of([edited, edited], aligned.clip.fps)
    with torch.inference_mode():
        faces, before = node_module("render").Render.execute(sample, loaded, "128", 1, "all frames").result
        node = node_module("picture_edit").CarryTexture
        carried, after = node.execute(faces, aligned, texture, 1.0, "all frames").result
        untouched, _ = node.execute(faces, aligned, texture, 0.0, "first frame").result
        nothing, _ = node.execute(faces, aligned, None, 1.0, "first frame").result
        blended = (
            node_module("blend")
            .BlendBack.execute(
                carried, aligned, keep_audio=False, quality=18, picture_frames="all frames", region="whole crop"
            )
            .result[1]
        )
    assert untouched is faces and nothing is faces and after.shape == before.shape == (2, 128, 128, 3)
    inside = texture.alpha[0] > 0.9
    assert int(inside.sum()) > 50
    wanted = pictures[1]
    error = [float((picture[0][inside] - wanted[inside]).abs().mean()) for picture in (before, blended)]
    assert error[1] < 0.5 * error[0]


def test_another_frame_needs_its_code(parts: tuple[Any, ...], node_module: NodeModule) -> None:
    latent, aligned, loaded, pictures, _ = parts
    node = node_module("picture_edit").EditFromPicture
    with pytest.raises(ValueError, match="only the code of the first one"), torch.inference_mode():
        node.execute(latent, loaded, aligned, pictures[1:], **(OPTIONS | {"frame": 1}))
    assert node.validate_inputs(layers="all") is True and "layers" in str(node.validate_inputs(layers="x"))
