"""The encoder of a first guess on frozen features: its file and its answers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from dynode_pack.dynode_core.checkpoints.load import load_generator
from dynode_pack.dynode_core.faces.landmarks import FaceLandmarker
from dynode_pack.dynode_core.faces.tracking import track_face
from dynode_pack.dynode_core.inversion import IdentityNetwork, face_encoder, load_perceptual
from dynode_pack.dynode_core.inversion.face_encoder import (
    CELLS,
    EMBEDDING,
    EXPRESSION,
    GROUP_STARTS,
    MAP_CHANNELS,
    SIDE,
    THUMBNAIL,
    FaceEncoder,
    Looks,
    expression_of,
    look_at,
    read_face_encoder,
    save_face_encoder,
)
from dynode_pack.dynode_core.inversion.first_guess import first_guess
from dynode_pack.dynode_core.layout import network_to_pictures
from dynode_pack.dynode_core.model_files import find_identity, find_landmarker, find_perceptual
from dynode_pack.dynode_core.types import AlignedClip
from dynode_pack.dynode_core.video import TensorClip

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


def _seen(faces: torch.Tensor, seen: Seen) -> Looks:
    return look_at(faces, torch.full((len(faces), EXPRESSION), 0.1), seen, seen)


def test_rows_of_a_group_share_a_code_and_groups_differ(encoder):
    seen = Seen()
    looks = _seen(_faces(2), seen)
    assert [tuple(x.shape) for x in looks.maps] == [(2, channels, CELLS**2) for channels in MAP_CHANNELS]
    assert looks.thumbnail.shape == (2, 3 * THUMBNAIL**2) and looks.embedding.shape == (2, EMBEDDING)
    codes = encoder(looks)
    assert codes.shape == (2, 23, 512)
    for start, stop in zip(GROUP_STARTS, (*GROUP_STARTS[1:], 23), strict=True):
        assert (codes[:, start:stop] == codes[:, start : start + 1]).all()
    assert (codes[:, 0] != codes[:, 4]).any() and (codes[:, 10] != codes[:, 15]).any()


def test_a_face_has_one_answer_alone_or_among_others_again_and_again(encoder):
    faces, seen = _faces(3), Seen()
    together = encoder(_seen(faces, seen))
    assert torch.equal(together, encoder(_seen(faces, seen)))
    torch.testing.assert_close(encoder(_seen(faces[1:2], seen)), together[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [64, 100, 250, 512])
def test_the_size_of_the_picture_hardly_matters(encoder, side):
    seen = Seen()
    smooth, same = (encoder(_seen(_faces(1, size), seen)) for size in (512, side))
    other = encoder(_seen(_faces(2, 512)[1:], seen))
    assert (same - smooth).norm() < 0.2 * (other - smooth).norm()


def test_every_kind_of_feature_counts(encoder):
    seen = Seen()
    looks = _seen(_faces(1), seen)
    codes = encoder(looks)
    maps = looks.maps
    changes = [{"maps": (torch.zeros_like(maps[0]), maps[1])}, {"maps": (maps[0], torch.zeros_like(maps[1]))}]
    changes += [{name: torch.zeros_like(getattr(looks, name))} for name in ("thumbnail", "embedding", "expression")]
    without = [replace(looks, **change) for change in changes]
    assert all(not torch.allclose(encoder(less), codes, atol=1e-4) for less in without)


def test_expressions_are_measured_from_the_faces_seen_and_bounded(encoder):
    still = torch.zeros(1, EXPRESSION)
    seen = look_at(_faces(1), still, *[Seen()] * 2)
    mean, moved = encoder(seen), still.clone()
    moved[0, 3], moved[0, -1] = 2.0, 10.0
    changed = encoder(replace(seen, expression=moved)) - mean
    groups = encoder.moved.weight[:, 3] * 2 + encoder.moved.weight[:, -1] * 4
    torch.testing.assert_close(changed, encoder.to_rows(groups.view(1, -1, 512)), rtol=1e-3, atol=1e-4)
    shapes, pose = np.arange(52.0)[None] / 52, np.array([[5.0, -3.0, 9.0]])
    assert expression_of(shapes, pose)[0, [0, 50, 51, 52]].tolist() == pytest.approx([1 / 52, 51 / 52, 5, -3])


def test_a_written_encoder_gives_the_same_codes_within_half_precision(encoder, tmp_path):
    path, seen = tmp_path / "encoder.safetensors", Seen()
    save_face_encoder(encoder, path, FAMILY, {"pictures": "0"})
    assert path.stat().st_size < MOST_BYTES
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.safetensors"]
    looks = _seen(_faces(2), seen)
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


@pytest.mark.weights
def test_the_shipped_encoder_recognises_generated_faces_and_is_chosen_where_all_it_needs_is_there() -> None:
    assert face_encoder.SHIPPED_FILE.stat().st_size < MOST_BYTES
    identity_file = find_identity()
    assert identity_file is not None
    generator, identity = load_generator(), IdentityNetwork(identity_file)
    perceptual = load_perceptual(find_perceptual())
    wanted = generator.map(
        torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(5)), truncation_psi=0.8
    )
    with torch.no_grad():
        faces = torch.cat([generator.synthesize(code[None], size=512).clamp(-1, 1) for code in wanted])
    clip = TensorClip(network_to_pictures(faces), Fraction(25))
    with FaceLandmarker(find_landmarker()) as landmarker:
        track = track_face(clip, landmarker)
    quad = np.array([(0, 0), (0, 512), (512, 512), (512, 0)], float)
    aligned = AlignedClip(clip, np.tile(quad, (3, 1, 1)), track)
    guess = first_guess(aligned, generator, perceptual=perceptual, identity=identity)
    assert (guess.name, guess.shifts) == ("face encoder", {"smile": 0.5})
    coarse = slice(0, 10)
    for k in range(3):
        found = guess.code_of(faces[k : k + 1], k)
        assert found.shape == (1, generator.num_ws, generator.w_dim)
        error = (found[0, coarse] - wanted[k, coarse]).norm() / (wanted[k, coarse] - generator.w_avg).norm()
        assert error < 0.85, f"face {k}: {error:.2f} of the distance to the mean code"
    blind = replace(aligned, track=replace(track, blendshapes=None))
    assert first_guess(blind, generator, perceptual=perceptual, identity=identity).name == "thumbnail"
    assert first_guess(aligned, generator, perceptual=perceptual).name == "thumbnail"
