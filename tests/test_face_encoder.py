"""The encoder of a first guess on frozen features: its file and its answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from dynode_pack.dynode_core.inversion import face_encoder
from dynode_pack.dynode_core.inversion.face_encoder import (
    CELLS,
    EMBEDDING,
    GROUP_STARTS,
    MAP_CHANNELS,
    SIDE,
    THUMBNAIL,
    FaceEncoder,
    Looks,
    first_guess,
    look_at,
    read_face_encoder,
    save_face_encoder,
)

FAMILY = "mobile_stylegan-ffhq-1024"
MOST_BYTES = 15 * 10**6


@pytest.fixture(scope="module")
def encoder() -> FaceEncoder:
    """Random weights of the real size."""
    torch.manual_seed(0)
    encoder = FaceEncoder(23, 512)
    for name, buffer in encoder.named_buffers():
        if name.startswith("axes"):
            buffer.copy_(torch.linalg.qr(torch.randn(buffer.shape))[0])
    return encoder.eval().requires_grad_(False)


class Seen:
    """Networks whose answers follow from the picture: stages of the right sizes, and an embedding."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(3)
        self._filters = [torch.randn(c, 3, 1, 1, generator=random) for c in (64, MAP_CHANNELS[0], 384, MAP_CHANNELS[1])]
        self._embed = torch.randn(48, EMBEDDING, generator=random)

    def features(self, images: torch.Tensor, *, exact: bool = True) -> list[torch.Tensor]:
        small = F.avg_pool2d(images, 8)
        return [F.normalize(F.conv2d(small, weight).relu(), dim=1) for weight in self._filters]

    def embed(self, images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        assert grid.shape == (1, 112, 112, 2) and float(grid.abs().max()) < 1.1
        return F.normalize(F.adaptive_avg_pool2d(images, 4).flatten(1) @ self._embed)


def _faces(count: int, side: int = SIDE) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return F.interpolate(coarse, side, mode="bicubic").clamp(-1, 1)


def test_rows_of_a_group_share_a_code_and_groups_differ(encoder):
    seen = Seen()
    looks = look_at(_faces(2), seen, seen)
    assert [tuple(x.shape) for x in looks.maps] == [(2, channels, CELLS**2) for channels in MAP_CHANNELS]
    assert looks.thumbnail.shape == (2, 3 * THUMBNAIL**2) and looks.embedding.shape == (2, EMBEDDING)
    codes = encoder(looks)
    assert codes.shape == (2, 23, 512)
    for start, stop in zip(GROUP_STARTS, (*GROUP_STARTS[1:], 23), strict=True):
        assert (codes[:, start:stop] == codes[:, start : start + 1]).all()
    assert (codes[:, 0] != codes[:, 4]).any() and (codes[:, 10] != codes[:, 15]).any()


def test_a_face_has_one_answer_alone_or_among_others_again_and_again(encoder):
    faces, seen = _faces(3), Seen()
    together = encoder(look_at(faces, seen, seen))
    assert torch.equal(together, encoder(look_at(faces, seen, seen)))
    torch.testing.assert_close(encoder(look_at(faces[1:2], seen, seen)), together[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [64, 100, 250, 512])
def test_the_size_of_the_picture_hardly_matters(encoder, side):
    seen = Seen()
    smooth, same = (encoder(look_at(_faces(1, size), seen, seen)) for size in (512, side))
    other = encoder(look_at(_faces(2, 512)[1:], seen, seen))
    assert (same - smooth).norm() < 0.2 * (other - smooth).norm()


def test_every_kind_of_feature_counts(encoder):
    seen = Seen()
    looks = look_at(_faces(1), seen, seen)
    codes = encoder(looks)
    without = [
        Looks((torch.zeros_like(looks.maps[0]), looks.maps[1]), looks.thumbnail, looks.embedding),
        Looks((looks.maps[0], torch.zeros_like(looks.maps[1])), looks.thumbnail, looks.embedding),
        Looks(looks.maps, torch.zeros_like(looks.thumbnail), looks.embedding),
        Looks(looks.maps, looks.thumbnail, torch.zeros_like(looks.embedding)),
    ]
    assert all(not torch.allclose(encoder(less), codes, atol=1e-4) for less in without)


def test_a_rendering_that_equals_the_face_changes_nothing_and_another_one_corrects(encoder):
    seen, faces = Seen(), _faces(2)
    first = first_guess(encoder, faces[:1], SimpleNamespace(), seen, seen, renderings=0)
    same = SimpleNamespace(synthesize=lambda codes, size: faces[:1])
    torch.testing.assert_close(first_guess(encoder, faces[:1], same, seen, seen), first)
    other = SimpleNamespace(synthesize=lambda codes, size: faces[1:])
    expected = 2 * first - encoder(look_at(faces[1:], seen, seen))
    torch.testing.assert_close(first_guess(encoder, faces[:1], other, seen, seen), expected, rtol=1e-4, atol=1e-5)


def test_a_written_encoder_gives_the_same_codes_within_half_precision(encoder, tmp_path):
    path, seen = tmp_path / "encoder.safetensors", Seen()
    save_face_encoder(encoder, path, FAMILY, {"pictures": "0"})
    assert path.stat().st_size < MOST_BYTES
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.safetensors"]
    looks = look_at(_faces(2), seen, seen)
    torch.testing.assert_close(read_face_encoder(path)(looks), encoder(looks), rtol=0.02, atol=0.01)


def test_files_of_another_kind_and_damaged_ones_are_refused(encoder, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="should be a face encoder"):
        read_face_encoder(path)
    save_face_encoder(encoder, path, FAMILY, {})
    tensors = load_file(path)
    del tensors["output.bias"]
    save_file(tensors, path, {"format": face_encoder.FORMAT, "num_ws": "23", "w_dim": "512", "rank": "384"})
    with pytest.raises(ValueError, match="does not hold the network"):
        read_face_encoder(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        read_face_encoder(path)
