"""ONNX networks read without onnx, and the likeness that inversion optimises."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from onnx_writer import embedder, write_onnx

from dynode_pack.dynode_core.checkpoints.errors import CheckpointError
from dynode_pack.dynode_core.checkpoints.onnx_file import read_onnx
from dynode_pack.dynode_core.faces.five_points import TEMPLATE_112, five_points, similarity
from dynode_pack.dynode_core.inversion import IdentityNetwork
from dynode_pack.dynode_core.inversion.feed_forward import FeedForward
from dynode_pack.dynode_core.inversion.identity_loss import face_grid
from dynode_pack.dynode_core.model_files import find_identity


def _mesh(turn: float = 0.2, scale: float = 0.35) -> np.ndarray:
    """`(478, 2)` landmarks in sides of the picture whose five points lie where a turned face has them."""
    landmarks = np.random.default_rng(0).uniform(0.3, 0.7, (478, 2))
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (TEMPLATE_112 / 112 - 0.5) @ rotation.T + 0.5
    for indices, point in zip(((33, 133), (263, 362), (1,), (61,), (291,)), points, strict=True):
        landmarks[list(indices)] = point
    return landmarks


def _opencv(path, inputs: np.ndarray) -> np.ndarray:
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(inputs)
    return network.forward()


@pytest.mark.parametrize("subtracts", [True, False])
def test_network_gives_what_opencv_gives(tmp_path, subtracts):
    path = tmp_path / "net.onnx"
    path.write_bytes(embedder(subtracts=subtracts))
    network = FeedForward(read_onnx(path))
    inputs = np.random.default_rng(1).uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)
    found = network(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(found, _opencv(path, inputs), rtol=1e-4, atol=1e-4)
    assert network.subtracts_first == subtracts


@pytest.mark.weights
def test_sface_gives_what_opencv_gives():
    path = find_identity()
    if path is None:
        pytest.skip("needs the face embedder of requirements-models.txt")
    inputs = np.random.default_rng(1).uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)
    found = FeedForward(read_onnx(path))(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(found, _opencv(path, inputs), rtol=1e-4, atol=1e-4)


def test_network_from_elsewhere_gives_what_opencv_gives(shared):
    path = shared / "assets" / "models" / "mobilefacenet_112.onnx"
    inputs = np.random.default_rng(1).standard_normal((1, 3, 112, 112)).astype(np.float32)
    found = FeedForward(read_onnx(path))(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(found, _opencv(path, inputs).reshape(found.shape), rtol=1e-3, atol=1e-3)


def test_cut_and_damaged_networks_are_refused(tmp_path):
    whole, path = embedder(side=8), tmp_path / "net.onnx"
    refused = 0
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            FeedForward(read_onnx(path))
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            FeedForward(read_onnx(path))
        except CheckpointError:
            refused += 1
    assert refused > 0


def test_constant_of_absurd_size_is_refused_without_memory(tmp_path):
    path = tmp_path / "net.onnx"
    huge = np.zeros((1, 1), np.float32)
    text = write_onnx([("Relu", ["input"], "output", {})], {"w": huge}, (1, 3), (1, 3))
    at = text.index(b"\x08\x01\x08\x01\x10\x01")
    path.write_bytes(text[:at] + b"\x08\x7f\x08\x7f" + text[at + 4 :])
    with pytest.raises(CheckpointError, match="should hold"):
        read_onnx(path)


def test_unknown_operation_is_named(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(write_onnx([("LSTM", ["input"], "output", {})], {}, (1, 3), (1, 3)))
    with pytest.raises(CheckpointError, match="LSTM"):
        FeedForward(read_onnx(path))


def test_network_that_can_not_embed_faces_is_refused_by_name_when_it_is_loaded(tmp_path):
    path = tmp_path / "net.onnx"
    for name, network, message in (
        ("operation", write_onnx([("LSTM", ["input"], "output", {})], {}, (1, 3), (1, 3)), "LSTM"),
        ("size", embedder(side=64), "shape"),
        ("padding", _padded(10_000), "known are 0 to 16"),
    ):
        path.write_bytes(network)
        with pytest.raises(CheckpointError, match=f"net.onnx holds no network that embeds faces: .*{message}"):
            IdentityNetwork(path)
            pytest.fail(name)


def _padded(pixels: int) -> bytes:
    convolution = ("Conv", ["input", "w"], "output", {"kernel_shape": [3, 3], "pads": [pixels] * 4})
    return write_onnx([convolution], {"w": np.zeros((1, 3, 3, 3), np.float32)}, (1, 3, 8, 8), (1, 1, 8, 8))


def test_face_is_cut_out_where_opencv_cuts_it_out():
    ys, xs = np.mgrid[0:256, 0:256] / 256
    picture = np.stack([xs, ys, 0.5 + 0.5 * np.sin(9 * xs) * np.cos(7 * ys)], axis=2).astype(np.float32)
    landmarks = _mesh()
    matrix = similarity(five_points(landmarks * 256) - 0.5, TEMPLATE_112)
    wanted = cv2.warpAffine(picture, matrix, (112, 112), flags=cv2.INTER_LINEAR)
    image = torch.from_numpy(picture).permute(2, 0, 1)[None]
    found = torch.nn.functional.grid_sample(image, face_grid(landmarks), align_corners=False)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), wanted, atol=0.02)  # OpenCV interpolates in steps of 1/32 px


def test_likeness_is_total_for_the_same_picture_and_teaches_another(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(embedder())
    network = IdentityNetwork(path)
    random = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 128, 128, generator=random) * 2 - 1
    loss = network.loss_for(target, _mesh())
    assert float(loss(target)) == pytest.approx(0, abs=1e-5)
    other = (torch.rand(1, 3, 128, 128, generator=random) * 2 - 1).requires_grad_(True)
    before = loss(other)[0]
    (gradient,) = torch.autograd.grad(before, other)
    assert float(gradient.abs().max()) > 0
    assert float(gradient[:, :, :8].abs().max()) == 0, "places outside the face should not matter"
    step = 0.05 * before.item() / float(gradient.square().sum())
    assert float(loss(other.detach() - step * gradient)[0]) < before.item()
