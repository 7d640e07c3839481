"""Parts that a segmentation model sees before or beside the face stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_blending_joins import HEIGHT, WIDTH, face_region, picture

from dynode_pack.dynode_core.blending import BlendSettings
from dynode_pack.dynode_core.blending.compositor import Compositor
from dynode_pack.dynode_core.blending.covering import covering_parts, find_covered
from dynode_pack.dynode_core.blending.occluders import SIDE
from dynode_pack.dynode_core.faces.segmenter import FaceSegmenter

MULTICLASS = ("background", "hair", "body-skin", "face-skin", "clothes", "others")


class ByColour:
    """Calls what is red in the picture the second of its parts, and all else the fourth."""

    def __init__(self, labels: tuple[str, ...] = MULTICLASS) -> None:
        self.labels, self.seen = labels, 0

    def parts(self, picture: np.ndarray) -> np.ndarray:
        self.seen += 1
        red = (picture[..., 0] > 200) & (picture[..., 1] < 60)
        parts = np.zeros((6, *red.shape), np.float32)
        parts[1], parts[3] = red, ~red
        return parts


def lock_of_hair() -> tuple[torch.Tensor, torch.Tensor]:
    """A frame with a red lock before the face, and `(h, w)` where the lock lies in the region's box."""
    frame = picture()
    frame[:, 60:72] = torch.tensor([1.0, 0.0, 0.0])
    where = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    where[:, 60:72] = True
    return frame, where[face_region().slices()]


@pytest.mark.parametrize("mode", ["adaptive", "replace"])
def test_hair_before_the_face_stays_and_the_face_changes(mode: str) -> None:
    frame, lock = lock_of_hair()
    region, settings = face_region(), BlendSettings(mode=mode, colour_match=False)
    base = torch.zeros(3, 64, 64)
    result = Compositor(settings, ByColour()).put(frame, base + 0.8, base, region, 0.0, 0)
    change = (result - frame)[region.slices()].abs().amax(dim=2)
    inner = torch.nn.functional.max_pool2d((~lock).float()[None], 7, stride=1, padding=3)[0] == 0
    far = torch.nn.functional.max_pool2d(lock.float()[None], 13, stride=1, padding=6)[0] == 0
    sure = region.mask > 0.99
    assert float(change[inner & sure].max()) < 0.06
    plain = Compositor(settings).put(frame, base + 0.8, base, region, 0.0, 0)
    assert float((plain - frame)[region.slices()].abs().amax(dim=2)[inner & sure].max()) > 0.15
    np.testing.assert_allclose(result[region.slices()][far & sure], plain[region.slices()][far & sure], atol=1e-5)


def test_covered_places_lie_where_the_crop_shows_them() -> None:
    frame, _ = lock_of_hair()
    covered = find_covered(frame, face_region(), ByColour(), "face")
    assert covered.shape == (1, SIDE, SIDE)
    # The lock is 12 px of a quad of 100 px, and slightly turned in it.
    assert float(covered.mean()) == pytest.approx(0.12, abs=0.01)
    assert float(covered[0, SIDE // 2, :20].max()) == 0 and float(covered[0, SIDE // 2].max()) > 0.95


@pytest.mark.parametrize(
    ("labels", "region", "kept"),
    [
        (MULTICLASS, "face", {"background", "hair", "body-skin", "clothes"}),
        (MULTICLASS, "face and forehead", {"background", "hair", "body-skin", "clothes"}),
        (MULTICLASS, "face, forehead and neck", {"background", "hair", "clothes"}),
        (MULTICLASS, "head and neck", {"background", "clothes"}),
        (MULTICLASS, "whole crop", {"background"}),
        (("background", "part 1"), "face", {"background"}),
        (("skin", "nose", "Hair", "hat", "eye_g", "neck", "cloth"), "face", {"Hair", "hat", "neck", "cloth"}),
    ],
)
def test_a_region_gives_free_what_it_holds(labels: tuple[str, ...], region: str, kept: set[str]) -> None:
    assert {labels[i] for i in covering_parts(labels, region)} == kept


def test_a_model_of_other_things_is_refused_by_the_names_of_its_parts() -> None:
    with pytest.raises(ValueError, match="road, sky, none of which"):
        covering_parts(("road", "sky"), "face")


def test_a_mask_of_the_person_alone_keeps_the_rest() -> None:
    class Person:
        labels = ()

        def parts(self, picture: np.ndarray) -> np.ndarray:
            person = np.zeros((1, *picture.shape[:2]), np.float32)
            person[:, :, picture.shape[1] // 2 :] = 1
            return person

    covered = find_covered(picture(), face_region(), Person(), "face")
    assert float(covered[0, 4:-4, 4 : SIDE // 2 - 4].min()) == pytest.approx(1)
    assert float(covered[0, :, SIDE // 2 + 6 :].max()) == 0


def test_files_that_are_no_segmentation_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="selfie_multiclass"):
        FaceSegmenter(tmp_path / "none.tflite")
    pytest.importorskip("mediapipe")
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"not a model" * 50)
    with pytest.raises(RuntimeError, match=r"(?s)broken\.tflite.*made for mediapipe Tasks"):
        FaceSegmenter(path)


@pytest.mark.weights
def test_a_real_model_tells_the_person_from_the_background(shared: Path) -> None:
    from PIL import Image

    path = Path(os.environ.get("DYNODE_SEGMENTER", "no file"))
    pictures = sorted((shared / "assets" / "aligned").glob("*.png"))
    if not path.is_file() or not pictures:
        pytest.skip("needs a segmentation model in $DYNODE_SEGMENTER and the aligned pictures")
    picture = np.asarray(Image.open(pictures[0]).convert("RGB").resize((256, 256)))
    with FaceSegmenter(path) as segmenter:
        parts = segmenter.parts(picture)
        labels = segmenter.labels
    assert parts.shape[1:] == (256, 256) and parts.min() >= 0 and parts.max() <= 1
    covered = 1 - parts[0] if len(parts) == 1 else parts[covering_parts(labels or ("background", "x"), "face")].sum(0)
    assert covered[110:180, 90:166].mean() < 0.1 and covered[:40, :30].mean() > 0.9
