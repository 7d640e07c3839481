"""Opening a file that a user handed in: what it is by its first bytes, and its content without running any of it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .budget import Budget
from .errors import CheckpointError, UnsupportedCheckpointError
from .numpy_values import PickledArray, read_npy
from .torch_streams import read_pickle, read_torch_archive
from .zip_index import stored_members

_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (
        b"<!doctype html",
        "a web page, not a checkpoint: the download link led to a page. Open it in a browser and save the file itself",
    ),
    (
        b"<html",
        "a web page, not a checkpoint: the download link led to a page. Open it in a browser and save the file itself",
    ),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself. Run `git lfs pull` where it was cloned"),
    (b"\x1f\x8b", "a gzip archive. Unpack it and choose the checkpoint inside"),
    (b"7z\xbc\xaf", "a 7-Zip archive. Unpack it and choose the checkpoint inside"),
    (b"rar!", "a RAR archive. Unpack it and choose the checkpoint inside"),
    (b"bzh", "a bzip2 archive. Unpack it and choose the checkpoint inside"),
    (b"\xfd7zxz", "an xz archive. Unpack it and choose the checkpoint inside"),
    (b"\x89hdf", "an HDF5 file (Keras). Only PyTorch, TensorFlow-pickle, OpenVINO and safetensors files are read"),
    (b"\x89png", "a picture"),
)


@dataclass(eq=False)
class OpenedFile:
    """The inert content of a file. Its tensors are views of the mapped file: clone what is to outlive it."""

    path: Path
    kind: str
    """ "pickle", "torch" (zip or legacy, and .npz), "npy" or "safetensors"."""
    root: Any
    """The unpickled object; None for npy and safetensors."""
    data: memoryview
    budget: Budget


def map_file(path: Path) -> memoryview:
    """The bytes of `path`, private to this process and read on demand.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is empty or a folder.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; choose a checkpoint file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path.name} is empty (0 bytes): the download did not start. Get it again.")
    with path.open("rb") as file:
        # Copy-on-write: tensors may alias the pages and stay writable, while the file on disk is never touched.
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def container_kind(head: bytes) -> str | None:
    """ "zip", "pickle", "npy" or "safetensors" by the first bytes; None if unknown."""
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "pickle"
    if head[:6] == b"\x93NUMPY":
        return "npy"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100 << 20:
        return "safetensors"
    return None


def open_file(path: str | Path) -> OpenedFile:
    """Open a checkpoint, direction or latent file of any format we read.

    Raises:
        FileNotFoundError: there is no such file.
        RefusedCheckpointError: the file wants to run code.
        UnsupportedCheckpointError: the file is of a known kind that is not read.
        CheckpointError: the file is empty, cut short, damaged or of an unknown kind.
    """
    path = Path(path)
    data = map_file(path)
    budget = Budget(len(data))
    head = bytes(data[:64])
    kind = container_kind(head)
    try:
        if kind == "zip":
            return OpenedFile(path, "torch", _read_zip(stored_members(data), budget), data, budget)
        if kind == "pickle":
            root, is_torch = read_pickle(data, budget)
            return OpenedFile(path, "torch" if is_torch else "pickle", root, data, budget)
    except CheckpointError as error:
        raise type(error)(f"{path.name}: {error}") from error
    if kind is None:
        raise CheckpointError(f"{path.name} {_describe_stranger(head)}.")
    return OpenedFile(path, kind, None, data, budget)


def _read_zip(members: Mapping[str, memoryview | None], budget: Budget) -> Any:
    if any("/code/" in name or name.endswith("constants.pkl") for name in members):
        raise UnsupportedCheckpointError(
            "this is a TorchScript program (torch.jit.save), which carries code. Export the state_dict with torch.save."
        )
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if members and all(name.endswith(".npy") for name in members):
        return _read_npz(members, budget)
    if len(pickles) != 1:
        raise CheckpointError(
            "this zip archive was not written by torch.save (it has no data.pkl). Unpack it and choose a file inside."
        )
    stored = {name: data for name, data in members.items() if data is not None}
    if len(stored) < len(members):
        raise CheckpointError(
            "this archive is compressed, which torch.save never does: something else packed it. Unpack it and choose "
            "the checkpoint inside."
        )
    return read_torch_archive(stored, pickles[0].removesuffix("data.pkl"), budget)


def _read_npz(members: Mapping[str, memoryview | None], budget: Budget) -> dict[str, PickledArray]:
    """The arrays of `numpy.savez`, by name."""
    arrays = {}
    for name, data in members.items():
        if data is None:
            raise CheckpointError(
                "this .npz archive is compressed (numpy.savez_compressed), which is not read. Unpack it and choose the "
                ".npy file inside."
            )
        arrays[name.removesuffix(".npy")] = found = PickledArray(budget)
        found.array = read_npy(data, budget)
    return arrays


def _describe_stranger(head: bytes) -> str:
    lowered = head.lstrip().lower()
    for magic, description in _STRANGERS:
        if lowered.startswith(magic):
            return f"is {description}"
    return (
        f"is of no kind that is read: it starts with {head[:8].hex(' ')}. Expected a PyTorch .pt/.pth/.ckpt, an NVIDIA "
        "or TensorFlow-era .pkl, a .safetensors, a .npy or an OpenVINO .xml. The file may be damaged; get it again"
    )
