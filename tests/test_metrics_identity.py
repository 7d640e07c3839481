"""Identity embeddings and the geometry of their crops."""

from __future__ import annotations

import numpy as np
import pytest

from dynode_pack.dynode_core.metrics.identity import TEMPLATE_112, IdentityEmbedder, similarity


def test_similarity_recovers_turn_scale_and_shift():
    angle, scale, shift = 0.4, 2.5, np.array([7.0, -3.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = scale * TEMPLATE_112 @ rotation.T + shift
    np.testing.assert_allclose(similarity(TEMPLATE_112, target), np.column_stack([scale * rotation, shift]), atol=1e-9)


def test_missing_network_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        IdentityEmbedder(tmp_path / "nothing.onnx")


@pytest.mark.weights
def test_same_person_is_nearer_than_other_people(shared):
    import cv2

    from dynode_pack.dynode_core.faces.landmarks import FaceLandmarker
    from dynode_pack.dynode_core.model_files import find_landmarker

    embedder = IdentityEmbedder(shared / "assets" / "models" / "mobilefacenet_112.onnx")
    files = [shared / "assets" / "aligned" / f"ravdess_{i:02d}.png" for i in (0, 10)]
    pictures = [cv2.imread(str(file))[..., ::-1].copy() for file in files]
    with FaceLandmarker(find_landmarker()) as landmarker:
        pictures.append(cv2.imread(str(files[0]))[:, ::-1, ::-1].copy())
        first, last, _ = (embedder.embed(p, landmarker.detect(p)[0].landmarks) for p in pictures)
    assert float(first @ last) > 0.6
    assert np.isclose(np.linalg.norm(first), 1, atol=1e-5)
