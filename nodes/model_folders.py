"""Where ComfyUI users keep the files that this pack reads."""

from __future__ import annotations

import logging
from pathlib import Path

import folder_paths

from ..dynode_core.checkpoints.load import CACHE_SUFFIX

GENERATORS = "stylegan2"
ENCODERS = "stylegan2_encoders"
LANDMARKERS = "mediapipe"
DIRECTIONS = "latent_directions"
PERCEPTUAL = "lpips"
IDENTITY = "face_recognition"
FACE_DETECTORS = "face_detection"
TRAJECTORIES = "latent_trajectories"
CODES = "latent_codes"
SAVED_TRAJECTORIES = "trajectories"
"""Folder below ComfyUI's output folder where trajectories are saved, and found again."""
SAVED_CODES = "codes"
"""The same for codes."""
_SAVED = {TRAJECTORIES: SAVED_TRAJECTORIES, CODES: SAVED_CODES}
_SUFFIXES = {
    GENERATORS: {".safetensors", ".pkl", ".pt", ".pth", ".ckpt"},
    ENCODERS: {".pt", ".pth", ".ckpt"},
    LANDMARKERS: {".task", ".tflite"},
    DIRECTIONS: {".safetensors", ".npy", ".npz", ".pt", ".pth", ".tar"},
    PERCEPTUAL: {".pth"},
    IDENTITY: {".onnx"},
    FACE_DETECTORS: {".onnx"},
    TRAJECTORIES: {".safetensors"},
    CODES: {".safetensors", ".pt", ".pth", ".npy", ".npz"},
}


def register() -> None:
    """Tell ComfyUI about the model folders; paths of `extra_model_paths.yaml` are kept."""
    for name, suffixes in _SUFFIXES.items():
        own = Path(folder_paths.models_dir) / name
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError as reason:
            logging.getLogger(__name__).warning("Could not create the model folder %s: %s", own, reason)
        paths, known = folder_paths.folder_names_and_paths.get(name, ([], set()))
        joined = [*paths, str(own)] if str(own) not in paths else list(paths)
        if name in _SAVED and (saved := str(Path(folder_paths.get_output_directory()) / _SAVED[name])) not in joined:
            joined.append(saved)
        folder_paths.folder_names_and_paths[name] = (joined, set(known) | suffixes)


def folders(name: str) -> tuple[Path, ...]:
    """The folders searched for files of kind `name`."""
    return tuple(Path(path) for path in folder_paths.get_folder_paths(name))


def files(name: str) -> list[str]:
    """What the combo of a node lists: files of kind `name`, relative to their folder."""
    listed = folder_paths.get_filename_list(name)
    return [file for file in listed if Path(file).suffix.lower() in _SUFFIXES[name] and not file.endswith(CACHE_SUFFIX)]


def full_path(name: str, file: str) -> Path:
    """The file behind an entry of a combo.

    Raises:
        FileNotFoundError: it is in none of the folders.
    """
    path = folder_paths.get_full_path(name, file)
    if path is None:
        searched = ", ".join(str(folder) for folder in folders(name))
        raise FileNotFoundError(f"{file!r} is not there any more. Searched: {searched}.")
    return Path(path)


def file_stamp(name: str, path: Path) -> tuple[str, int, int]:
    """What tells ComfyUI that the file behind an entry of a combo was replaced."""
    stat = path.stat()
    return (name, stat.st_mtime_ns, stat.st_size)


def cache_dir(name: str) -> Path:
    """Where `name` (converted generators, finished keyframes) is kept between runs: never served to the page."""
    return Path(folder_paths.get_system_user_directory("dynode")) / name
