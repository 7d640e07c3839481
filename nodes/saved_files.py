"""Files that the Save and Load nodes share: names in the output folder, and what tells that a file was replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from . import model_folders

NO_FILE = "none"
SUFFIX = ".safetensors"


def prefix_input(folder: str) -> io.Input:
    """Where a Save node writes: `folder` of the output folder unless the user says otherwise."""
    return io.String.Input(
        "filename_prefix",
        default=f"{folder}/clip",
        tooltip="Folder and beginning of the name, within ComfyUI's output folder. A number is added.",
    )


def write_output(filename_prefix: str, save: Callable[[Path], object]) -> io.NodeOutput:
    """Have `save` write the next free file of that name; the node's output is its path, and its name is shown."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        filename_prefix, folder_paths.get_output_directory()
    )
    file = f"{name}_{counter:05}_{SUFFIX}"
    path = Path(folder) / file
    save(path)
    return io.NodeOutput(str(path), ui=ui.PreviewText(os.path.join(subfolder, file)))


def stamp(kind: str, file: str | None) -> Any:
    """What `fingerprint_inputs` gives for a `file` of the model folders of `kind`: changes when it is replaced.

    A name that comes through a link is not known yet (None).
    """
    if file is None:
        return None
    path = folder_paths.get_full_path(kind, file)
    return file if path is None else model_folders.file_stamp(file, Path(path))
