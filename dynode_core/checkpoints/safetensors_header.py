"""The metadata of a .safetensors file without its tensors: read, and changed.

The format is 8 bytes of length (little-endian), so many bytes of JSON, and the tensors, whose places count from there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

_LARGEST = 16 << 20
_ALIGNMENT = 8


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says; nothing if it is none. Only the header is read."""
    with path.open("rb") as file:
        metadata = _header(file).get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def change_metadata(path: Path, changes: dict[str, str]) -> None:
    """Set entries of the metadata and leave all else as it is. The file is replaced whole or not at all.

    Raises:
        OSError: it can't be read, or its folder can't be written.
        ValueError: it is no safetensors file.
    """
    part = path.with_name(f"{path.stem}.part.{os.getpid()}.safetensors")
    try:
        with path.open("rb") as file, part.open("wb") as out:
            header = _header(file)
            if not header:
                raise ValueError(f"{path.name} is no safetensors file.")
            text = json.dumps({**header, "__metadata__": {**header.get("__metadata__", {}), **changes}}).encode()
            text += b" " * (-len(text) % _ALIGNMENT)
            out.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(file, out, 1 << 20)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _header(file: BinaryIO) -> dict[str, Any]:
    """The JSON of an open file, which is then at its tensors; nothing if it is no safetensors file."""
    size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= _LARGEST:
        return {}
    try:
        header = json.loads(file.read(size))
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}
