"""The convolutional encoder of a first guess: its file and its answers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from dynode_pack.dynode_core.inversion import face_encoder
from dynode_pack.dynode_core.inversion.face_encoder import (
    GROUP_STARTS,
    FaceEncoder,
    read_face_encoder,
    save_face_encoder,
)

FAMILY = "mobile_stylegan-ffhq-1024"
MOST_BYTES = 15 * 10**6


@pytest.fixture(scope="module")
def encoder() -> FaceEncoder:
    """Random weights of the real size."""
    torch.manual_seed(0)
    return FaceEncoder(23, 512).eval().requires_grad_(False)


def _faces(count: int, side: int = 128) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return F.interpolate(coarse, side, mode="bicubic").clamp(-1, 1)


def test_rows_of_a_group_share_a_code_and_groups_differ(encoder):
    codes = encoder(_faces(2))
    assert codes.shape == (2, 23, 512)
    for start, stop in zip(GROUP_STARTS, (*GROUP_STARTS[1:], 23), strict=True):
        assert (codes[:, start:stop] == codes[:, start : start + 1]).all()
    assert (codes[:, 0] != codes[:, 4]).any() and (codes[:, 10] != codes[:, 15]).any()


def test_a_face_has_one_answer_alone_or_among_others_again_and_again(encoder):
    faces = _faces(3)
    together = encoder(faces)
    assert torch.equal(together, encoder(faces))
    torch.testing.assert_close(encoder(faces[1:2]), together[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [64, 100, 128, 250, 512])
def test_the_size_of_the_picture_hardly_matters(encoder, side):
    smooth, same = _faces(1, 512), _faces(1, side)
    change = (encoder(same) - encoder(smooth)).norm() / encoder(smooth).norm()
    assert change < 0.2


def test_a_shifted_crop_changes_the_codes_less_than_another_face_does(encoder):
    first, second = _faces(2, 132).split(1)
    here = encoder(first[..., 2:130, 2:130])
    jitter = (encoder(first[..., 3:131, 1:129]) - here).norm()
    assert jitter < 0.3 * (encoder(second[..., 2:130, 2:130]) - here).norm()


def test_a_written_encoder_gives_the_same_codes_within_half_precision(encoder, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_face_encoder(encoder, path, FAMILY, {"pictures": "0"})
    assert path.stat().st_size < MOST_BYTES
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.safetensors"]
    torch.testing.assert_close(read_face_encoder(path)(_faces(2)), encoder(_faces(2)), rtol=0.02, atol=0.01)


def test_files_of_another_kind_and_damaged_ones_are_refused(encoder, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="should be a face encoder"):
        read_face_encoder(path)
    save_face_encoder(encoder, path, FAMILY, {})
    tensors = load_file(path)
    del tensors["output.bias"]
    save_file(tensors, path, {"format": face_encoder.FORMAT, "num_ws": "23", "w_dim": "512"})
    with pytest.raises(ValueError, match="does not hold the network"):
        read_face_encoder(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        read_face_encoder(path)
