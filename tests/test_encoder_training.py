"""scripts/refine_encoder.py: what can be checked without training."""

from __future__ import annotations

import pytest
import torch

import refine_encoder
from refine_encoder import EXPRESSION, CodeSpace, Correction, FaceEncoder, Looks, emphasis, fold

NUM_WS, W_DIM, RANK = 23, 16, 8


@pytest.fixture
def encoder() -> FaceEncoder:
    torch.manual_seed(0)
    encoder = FaceEncoder(NUM_WS, W_DIM, RANK).requires_grad_(False)
    for name, buffer in encoder.named_buffers():
        if name.startswith("axes"):
            buffer.copy_(torch.linalg.qr(torch.randn(buffer.shape))[0])
    return encoder


@pytest.fixture
def space() -> CodeSpace:
    random = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(W_DIM, W_DIM, generator=random))[0]
    return CodeSpace(torch.randn(W_DIM, generator=random), axes, 0.2 + torch.rand(W_DIM, generator=random))


def _looks(count: int) -> Looks:
    random = torch.Generator().manual_seed(2)
    maps = tuple(torch.rand(count, channels, 64, generator=random) for channels in (192, 256))
    shapes = [torch.rand(count, size, generator=random) for size in (3 * 24**2, 128, EXPRESSION)]
    return Looks(maps, *shapes)


def test_a_folded_correction_adds_what_it_added_beside_the_encoder(encoder: FaceEncoder, space: CodeSpace) -> None:
    looks = _looks(12)
    inputs = torch.cat(refine_encoder._inputs(encoder, looks), dim=1)
    correction = Correction(inputs, len(encoder.groups) * W_DIM).requires_grad_(False)
    correction.weight.normal_(generator=torch.Generator().manual_seed(3))
    correction.bias.normal_(generator=torch.Generator().manual_seed(4))
    before = encoder(looks)
    added = encoder.to_rows(correction(inputs).unflatten(1, (len(encoder.groups), W_DIM)))
    wanted = space.decode(space.encode(before) + added)
    fold(encoder, correction, space)
    assert float((wanted - before).abs().max()) > 0.1
    torch.testing.assert_close(encoder(looks), wanted, rtol=1e-3, atol=1e-3)


def test_a_correction_does_nothing_at_first_and_blows_up_nothing_that_hardly_varies() -> None:
    random = torch.Generator().manual_seed(5)
    inputs = torch.randn(200, RANK + EXPRESSION, generator=random)
    inputs[:, 0] *= 1e-4
    inputs[:, RANK] *= 1e-4
    correction = Correction(inputs, 3)
    assert not correction(inputs).any()
    counted = (inputs - correction.middle) @ correction.whitening
    assert float(counted.std(dim=0).max()) < 1.5
    assert float(correction.whitening[0].abs().max()) < 5 and correction.whitening[RANK, RANK] == 1


def test_emphasis_lies_on_eyes_and_mouth() -> None:
    weight = emphasis()
    assert float(weight.mean()) == pytest.approx(1)
    eyes, mouth, forehead, cheek = (
        weight[0, 0, 61, 49],
        weight[0, 0, 93, 50],
        weight[0, 0, 25, 64],
        weight[0, 0, 75, 25],
    )
    assert min(eyes, mouth) > 3 * max(forehead, cheek)
