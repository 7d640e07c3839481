"""Small sets of tensors on disk, so that interrupted work goes on where it stopped.

Content-addressed: the name of an entry is a hash of everything that it depends on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from .checkpoints.tensors import load_tensors

MAX_BYTES = 512 * 2**20


class TensorCache:
    """Small sets of tensors by key in one folder of at most `max_bytes`; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    @property
    def keeps(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors stored under `key`, or None; a damaged entry counts as absent."""
        if self._folder is None or not (self._folder / f"{key}.safetensors").is_file():
            return None
        path = self._folder / f"{key}.safetensors"
        try:
            tensors = load_tensors(path)
        except (ValueError, OSError):
            return None
        os.utime(path)
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Store tensors, and drop the least recently used entries beyond the size limit."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{key}.part.{os.getpid()}"
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part)
            os.replace(part, self._folder / f"{key}.safetensors")
        finally:
            part.unlink(missing_ok=True)
        self._shrink()

    def _shrink(self) -> None:
        assert self._folder is not None
        entries = sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in entries:
            total += path.stat().st_size
            if total > self._max_bytes:
                path.unlink(missing_ok=True)


def folder_bytes(folder: Path) -> int:
    """What the entries of a cache take on the disk, unfinished ones included."""
    return sum(path.stat().st_size for path in _entries(folder))


def clear_folder(folder: Path) -> None:
    """Delete every entry of a cache; other files in the folder stay."""
    for path in _entries(folder):
        path.unlink(missing_ok=True)


def _entries(folder: Path) -> list[Path]:
    return [path for pattern in ("*.safetensors", "*.part.*") for path in folder.glob(pattern) if path.is_file()]


def content_key(parts: Iterable[Tensor | np.ndarray | str]) -> str:
    """SHA-256 prefix over tensors, arrays and strings, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            array = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]
