"""Which codes and directions fit which generators, and how rows move between two architectures."""

from __future__ import annotations

import pytest
import torch
from tiny_generators import tiny_mobile, tiny_stylegan2

from dynode_pack.dynode_core.editing import load_direction
from dynode_pack.dynode_core.editing.latent import direction_rows
from dynode_pack.dynode_core.families import (
    UNKNOWN_W,
    counterpart,
    move_rows,
    parse_family,
    row_map,
    shares_w,
    w_family,
)
from dynode_pack.dynode_core.types import EditDirection

BIG, MOBILE = "stylegan2-ffhq-1024x18", "mobile_stylegan-ffhq-1024"


@pytest.mark.parametrize(
    ("name", "num_ws"),
    [
        (BIG, 18),
        (MOBILE, 23),
        ("stylegan2-car-512x16", 16),
        ("stylegan2-bird-256x14", 14),
        ("stylegan2-isaac3d-128x12", 12),
    ],
)
def test_a_family_says_how_many_rows_its_codes_have(name: str, num_ws: int) -> None:
    family = parse_family(name)
    assert family is not None and family.num_ws == num_ws


def test_other_names_are_no_families() -> None:
    assert parse_family("test-family") is None and row_map("test-family", BIG) is None
    assert counterpart("test-family") is None and w_family("test-family") == "test-family"


def test_rows_of_two_architectures_that_correspond_drive_the_same_layer() -> None:
    mobile, big = tiny_mobile(), tiny_stylegan2(128, "stylegan2-tiny-128x12")
    rows = row_map("stylegan2-tiny-128x12", "mobile_stylegan-tiny-128")
    assert rows is not None and len(rows) == mobile.num_ws
    for row, source in enumerate(rows):
        size = _first_size_that_follows(mobile, row)
        if size is not None:
            assert size == _first_size_that_follows(big, source), f"row {row} of the one, {source} of the other"
    assert sum(_first_size_that_follows(mobile, row) is not None for row in range(mobile.num_ws)) == 9


def _first_size_that_follows(generator, row: int) -> int | None:
    """Size of the first feature maps that change with a row, None if none of up to 64 px does."""
    code = torch.zeros(2, generator.num_ws, generator.w_dim)
    code[1, row] = 1.0
    for size in (8, 16, 32, 64):
        before, after = generator.feature_maps(code, size=size)
        if not torch.allclose(before, after):
            return size
    return None


def test_rows_survive_the_way_there_and_back() -> None:
    there, back = row_map(BIG, MOBILE), row_map(MOBILE, BIG)
    assert there is not None and back is not None and (len(there), len(back)) == (23, 18)
    assert [there[row] for row in back] == [*range(16), 15, 15]
    assert there[:7] == (0, 1, 2, 3, 3, 4, 5) and there[-3:] == (14, 15, 15)
    assert list(there) == sorted(there) and list(back) == sorted(back)


def test_codes_with_equal_rows_move_between_all_sizes_of_a_data_set() -> None:
    code = torch.randn(2, 1, 8).expand(2, 18, 8)
    for target, num_ws in ((MOBILE, 23), ("stylegan2-ffhq-256x14", 14)):
        moved = move_rows(code, BIG, target, num_ws)
        assert torch.equal(moved, code[:, :1].expand(2, num_ws, 8))


def test_codes_with_rows_of_their_own_move_by_the_map_only() -> None:
    code = torch.randn(18, 8)
    assert torch.equal(move_rows(code, BIG, MOBILE, 23)[4], code[3])
    assert move_rows(code, BIG, BIG, 18) is code
    for target, num_ws in (("stylegan2-ffhq-256x14", 14), ("stylegan2-car-1024x18", 18), ("other", 18)):
        with pytest.raises(ValueError, match="can't be moved"):
            move_rows(code, BIG, target, num_ws)
    with pytest.raises(ValueError, match="can't be moved"):
        move_rows(code, "stylegan2-unknown-1024x18", "mobile_stylegan-unknown-1024", 23)


def test_w_directions_fit_their_data_set_and_unknown_ones() -> None:
    assert shares_w("ffhq-w", BIG) and shares_w("ffhq-w", MOBILE) and shares_w(UNKNOWN_W, BIG)
    assert shares_w("ffhq-w", "stylegan2-unknown-1024x18") and shares_w("ffhq-w", "test-family")
    assert not shares_w("ffhq-w", "stylegan2-car-512x16") and not shares_w(BIG, BIG)


def test_direction_rows_of_the_other_architecture_are_moved() -> None:
    rows = torch.randn(18, 512)
    for family in (BIG, "ffhq-w", MOBILE):  # a file that names no family is taken to fit the connected generator
        moved = direction_rows(EditDirection("x", rows, family), torch.Size((23, 512)), MOBILE)
        assert torch.equal(moved[:6], rows[[0, 1, 2, 3, 3, 4]])
    back = direction_rows(EditDirection("x", torch.randn(23, 512), MOBILE), torch.Size((18, 512)), BIG)
    assert back.shape == (18, 512)


@pytest.mark.parametrize("family", ["ffhq-w", BIG, "stylegan2-ffhq-512x16"])
def test_faces_directions_are_refused_by_other_generators(family: str) -> None:
    car = "stylegan2-car-512x16"
    with pytest.raises(ValueError, match=f"made for the generator family '{family}', but the codes belong to '{car}'"):
        direction_rows(EditDirection("smile", torch.randn(512), family), torch.Size((16, 512)), car)


def test_a_file_fits_the_data_set_of_the_connected_generator(tmp_path) -> None:
    torch.save(torch.randn(1, 16), tmp_path / "colour.pt")
    direction = load_direction("colour.pt", [tmp_path], family="stylegan2-car-512x16")
    assert direction.family == "car-w"
    assert direction_rows(direction, torch.Size((14, 16)), "stylegan2-car-256x14").shape == (14, 16)


def test_a_converted_direction_keeps_its_family(tmp_path) -> None:
    from dynode_pack.dynode_core.artifacts import save_direction

    save_direction(EditDirection("wheels", torch.randn(16), "car-w"), tmp_path / "wheels.safetensors")
    assert load_direction("wheels.safetensors", [tmp_path], family=BIG).family == "car-w"
