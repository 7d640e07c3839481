"""Linear edits, layer ranges, direction files and edits from a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.editing import (
    apply_direction,
    edit_from_image,
    first_latent,
    layer_mask,
    list_directions,
    load_direction,
    shipped_directions,
)
from dynode_pack.dynode_core.editing.latent import direction_rows
from dynode_pack.dynode_core.types import AlignedClip, EditDirection, EditedLatent, FaceTrack
from dynode_pack.dynode_core.video import TensorClip

FAMILY = "mobile_stylegan-ffhq-1024"
EXPRESSIONS = ("smile", "mouth open", "eyes closed", "brows up")


@pytest.fixture
def latent() -> EditedLatent:
    code = torch.randn(23, 512, generator=torch.Generator().manual_seed(0))
    return EditedLatent(code, code, (), FAMILY)


def test_the_pack_ships_seven_named_directions():
    assert set(shipped_directions()) == {*EXPRESSIONS, "yaw", "pitch", "roll"}


def test_strength_zero_changes_nothing(latent):
    for direction in shipped_directions().values():
        assert torch.equal(apply_direction(latent, direction, 0.0).w_plus_0, latent.w_plus_0)


def test_edits_add_up_in_any_order(latent):
    smile, yaw = shipped_directions()["smile"], shipped_directions()["yaw"]
    one = apply_direction(apply_direction(latent, smile, 2), yaw, -1)
    other = apply_direction(apply_direction(latent, yaw, -1), smile, 2)
    torch.testing.assert_close(one.w_plus_0, other.w_plus_0)
    assert one.edits == ("smile=2", "yaw=-1") and torch.equal(one.base_w_plus_0, latent.w_plus_0)


def test_expressions_leave_the_fine_rows_alone(latent):
    edited = apply_direction(latent, shipped_directions()["smile"], 3)
    changed = (edited.w_plus_0 != latent.w_plus_0).any(dim=1)
    assert changed.nonzero().flatten().tolist() == list(range(4, 10))


def test_an_edit_does_not_change_what_it_was_given(latent):
    before = latent.w_plus_0.clone()
    apply_direction(latent, shipped_directions()["smile"], 3)
    assert torch.equal(latent.w_plus_0, before)


@pytest.mark.parametrize(("layers", "rows"), [("0-2", [0, 1, 2]), ("1, 4-5", [1, 4, 5]), ("all", list(range(18)))])
def test_layers_name_rows(layers, rows):
    assert layer_mask(layers, 18).nonzero().flatten().tolist() == rows


@pytest.mark.parametrize("layers", ["", "5-2", "18", "a", "-1"])
def test_bad_layers_are_refused(layers):
    with pytest.raises(ValueError, match="layers"):
        layer_mask(layers, 18)


def test_direction_of_another_width_is_refused(latent):
    with pytest.raises(ValueError, match="width 32"):
        apply_direction(latent, EditDirection("x", torch.randn(32), "ffhq-w"), 1)


def test_direction_of_another_family_is_refused(latent):
    with pytest.raises(ValueError, match="stylegan2-cars"):
        apply_direction(latent, EditDirection("x", torch.randn(512), "stylegan2-cars"), 1)


def test_direction_with_other_rows_is_refused_but_equal_rows_fit():
    shape = torch.Size((23, 512))
    with pytest.raises(ValueError, match="15 rows that differ"):
        direction_rows(EditDirection("x", torch.randn(15, 512), "ffhq-w"), shape, FAMILY)
    row = torch.randn(512)
    torch.testing.assert_close(
        direction_rows(EditDirection("x", row.expand(18, 512), "ffhq-w"), shape, FAMILY), row.expand(23, 512)
    )


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_direction_files_of_every_kind_are_read(tmp_path, suffix):
    from safetensors.torch import save_file

    rows = torch.randn(1, 512)
    path = tmp_path / f"age{suffix}"
    if suffix == ".npy":
        np.save(path, rows.numpy())
    elif suffix == ".pt":
        torch.save(rows, path)
    else:
        save_file({"direction": rows}, path)
    direction = load_direction(path.name, [tmp_path], family=FAMILY)
    torch.testing.assert_close(direction.direction, rows[0])
    assert list_directions([tmp_path])[path.name] == path and direction.family == "ffhq-w"


def test_shared_age_direction_fits(shared, latent):
    direction = load_direction(shared / "assets" / "directions" / "ffhq_w_age.npy")
    edited = apply_direction(latent, direction, 5)
    assert float((edited.w_plus_0 - latent.w_plus_0).norm()) > 1


def test_unknown_direction_names_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="smile.*Folders searched"):
        load_direction("grin", [tmp_path])


def test_nan_direction_is_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.full((1, 512), np.nan, np.float32))
    with pytest.raises(ValueError, match="NaN"):
        load_direction("bad.npy", [tmp_path])


def _clip(picture: torch.Tensor) -> AlignedClip:
    size = picture.shape[0]
    quad = np.array([(0, 0), (0, size), (size, size), (size, 0)], float)
    track = FaceTrack(
        np.full((2, 68, 2), size / 2), np.tile([0.0, 0, size, size], (2, 1)), np.ones(2, np.float32), np.ones(2, bool)
    )
    return AlignedClip(TensorClip(torch.stack([picture, picture]), 25), np.tile(quad, (2, 1, 1)), track)


def test_edit_from_a_picture_moves_the_face_towards_it():
    generator = tiny_mobile()
    random = torch.Generator().manual_seed(2)
    code, other = generator.map(torch.randn(2, generator.z_dim, generator=random), truncation_psi=0.4)
    goal = code + 0.5 * (other - code)
    with torch.no_grad():
        pictures = ((generator.synthesize(torch.stack([code, goal])) + 1) / 2).permute(0, 2, 3, 1)
    pictures = pictures.clamp(0, 1)
    latent = first_latent(EditedLatent(code, code, (), generator.family))
    everywhere = torch.ones(pictures.shape[1:3])
    edited = edit_from_image(latent, pictures[1], _clip(pictures[0]), generator, perceptual=None, mask=everywhere)
    with torch.no_grad():
        after = ((generator.synthesize(edited.w_plus_0[None]) + 1) / 2).permute(0, 2, 3, 1).clamp(0, 1)
    assert float((after - pictures[1:]).square().mean()) < 0.6 * float((pictures[0] - pictures[1]).square().mean())
    assert "expressed" in edited.edits[0]


def test_an_unchanged_picture_is_no_edit():
    generator = tiny_mobile()
    code = generator.w_avg.expand(generator.num_ws, -1).contiguous()
    picture = torch.rand(128, 128, 3)
    latent = EditedLatent(code, code, (), generator.family)
    edited = edit_from_image(latent, picture, _clip(picture), generator, perceptual=None)
    assert torch.equal(edited.w_plus_0, code)


def test_a_picture_of_another_shape_is_refused():
    generator = tiny_mobile()
    code = generator.w_avg.expand(generator.num_ws, -1).contiguous()
    latent = EditedLatent(code, code, (), generator.family)
    with pytest.raises(ValueError, match="64 x 32"):
        edit_from_image(latent, torch.rand(32, 64, 3), _clip(torch.rand(128, 128, 3)), generator, perceptual=None)
