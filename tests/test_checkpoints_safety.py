"""No file runs code, exhausts memory or fails without saying what is wrong."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.checkpoints.budget import MAX_OPERATIONS
from dynode_pack.dynode_core.checkpoints.container import open_file
from dynode_pack.dynode_core.checkpoints.errors import (
    CheckpointError,
    RefusedCheckpointError,
    UnsupportedCheckpointError,
)
from dynode_pack.dynode_core.checkpoints.tensors import load_tensors

Golden = Callable[[str], Path]


def _traces() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if "PWNED" in name}


def _write(folder: Path, data: bytes, name: str = "file.pt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _with_call(function: object, args: tuple[object, ...]) -> bytes:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return function, args

    return pickle.dumps({"g_ema": Payload()})


@pytest.mark.parametrize(
    "name", ["malicious.pkl", "malicious.pt", "malicious_nested_storage.pkl", "malicious_object_array.npy"]
)
def test_malicious_file_is_refused_and_nothing_runs(golden: Golden, name: str) -> None:
    before = _traces()
    with pytest.raises(RefusedCheckpointError, match="refused: this file"):
        load_tensors(golden(name))
    assert _traces() == before


def test_source_text_inside_a_module_stays_text(golden: Golden) -> None:
    before = _traces()
    opened = open_file(golden("malicious_persistence_src.pkl"))
    assert opened.root is not None
    assert _traces() == before


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_refusal_names_what_the_file_wants_to_run(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pkl"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.getenv, ("HOME",)

    path.write_bytes(pickle.dumps({"a": Payload()}, protocol=protocol))
    with pytest.raises(RefusedCheckpointError, match=r"wants to run os\.getenv"):
        open_file(path)


@pytest.mark.parametrize(
    "function", [eval, exec, getattr, __import__, open, os.mkdir, np.load, torch.load, torch.hub.load]
)
def test_functions_outside_the_list_are_refused(tmp_path: Path, function: object) -> None:
    with pytest.raises(RefusedCheckpointError):
        open_file(_write(tmp_path, _with_call(function, ("1",))))


def test_a_nested_stream_may_not_nest_another(tmp_path: Path) -> None:
    inner = _saved(torch.zeros(3), _use_new_zipfile_serialization=False)
    for _ in range(2):
        inner = _with_call(torch.storage._load_from_bytes, (inner,))
    with pytest.raises(CheckpointError):
        open_file(_write(tmp_path, inner))


def test_state_given_to_a_listed_function_is_not_set(tmp_path: Path) -> None:
    # BUILD on the function itself would otherwise rewrite its defaults for everybody.
    stream = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\x00\x00\x00__defaults__K\x01sb."
    with pytest.raises(CheckpointError, match="gives a state"):
        open_file(_write(tmp_path, stream))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>Google Drive</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00" + bytes(64), "gzip"),
        (bytes(64), "starts with 00 00"),
        (b"PK\x03\x04" + bytes(64), "cut short"),
        (b"\x80\x04", "ends early"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60), "cut short"),
        (b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.", "holds no tensors"),
        (b"\x80\x04r\xff\xff\xff\xff", "ends early"),
        (b"\x93NUMPY\x01\x00\xff\xff{}", "cut short"),
        (struct.pack("<Q", 1 << 20) + b"{", "cut short"),
    ],
)
def test_damaged_file_is_named_and_explained(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_tensors(_write(tmp_path, data, "mine.pt"))
    with pytest.raises(ValueError, match=r"mine\.pt"):
        load_tensors(tmp_path / "mine.pt")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_tensors(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_tensors(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_half_downloaded_file_is_an_error_at_every_length(tmp_path: Path, legacy: bool) -> None:
    whole = _saved({"a": torch.arange(64.0)}, _use_new_zipfile_serialization=not legacy)
    for length in range(1, len(whole) - 1, 13):
        with pytest.raises(CheckpointError):
            load_tensors(_write(tmp_path, whole[:length]))


def test_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(50 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match="compressed"):
        load_tensors(path)


def test_torchscript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(UnsupportedCheckpointError, match="TorchScript"):
        load_tensors(path)


def test_tensor_expanded_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    value = torch.zeros(1).expand(1 << 20, 1 << 14)
    with pytest.raises(CheckpointError, match="more memory than its size explains"):
        load_tensors(_write(tmp_path, _saved(value)))


def test_tensor_that_reaches_outside_its_storage_is_refused(tmp_path: Path) -> None:
    whole = bytearray(_saved(torch.arange(300.0).reshape(3, 100), _use_new_zipfile_serialization=False))
    size = whole.find(b"K\x03Kd\x86")
    assert size > 0
    whole[size + 1] = 200
    with pytest.raises(CheckpointError, match="reaches element"):
        load_tensors(_write(tmp_path, bytes(whole)))


def test_repeated_tensors_cannot_multiply_memory(tmp_path: Path) -> None:
    flat = torch.zeros(1 << 20)
    with pytest.raises(CheckpointError, match="more memory"):
        load_tensors(_write(tmp_path, _saved([flat[:] for _ in range(200)])))


def test_endless_stream_ends(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pickle operations"):
        open_file(_write(tmp_path, b"\x80\x04N" + b"0N" * (MAX_OPERATIONS // 2)))


def test_deep_nesting_neither_recurses_nor_crashes(tmp_path: Path) -> None:
    deep = b"\x80\x04)" + b"\x85" * 200_000
    with pytest.raises(CheckpointError, match="levels deep"):
        load_tensors(_write(tmp_path, deep + b"."))
    with pytest.raises(CheckpointError, match="dictionary key"):
        load_tensors(_write(tmp_path, b"\x80\x04}" + deep[2:] + b"Ns."))


def test_self_containing_list_ends(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="levels deep"):
        load_tensors(_write(tmp_path, b"\x80\x04]\x94h\x00a."))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_come_back_as_torch_saved_them(tmp_path: Path, legacy: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = (torch.randn(4, 6, generator=generator) * 9).to(dtype)
    value = {
        "a": tensor,
        "view": tensor[1:, ::2],
        "nested": {"t": tensor.t()},
        "empty": torch.zeros(0, 3),
        "n": [tensor[0]],
    }
    read = load_tensors(_write(tmp_path, _saved(value, _use_new_zipfile_serialization=not legacy)))
    assert read.keys() == {"a", "view", "nested.t", "empty", "n.0"}
    assert torch.equal(read["a"], tensor) and read["a"].dtype == dtype
    assert torch.equal(read["view"], tensor[1:, ::2])
    assert torch.equal(read["nested.t"], tensor.t())
    assert read["empty"].shape == (0, 3)
    assert torch.equal(read["n.0"], tensor[0])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i8", "|u1"])
def test_arrays_come_back_as_numpy_pickled_them(tmp_path: Path, protocol: int, dtype: str) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)
    data = pickle.dumps({"c": array, "f": np.asfortranarray(array)}, protocol=protocol)
    read = load_tensors(_write(tmp_path, data, "x.pkl"))
    for name in ("c", "f"):
        np.testing.assert_array_equal(read[name].numpy(), np.arange(24).reshape(4, 6))


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))]
)
def test_npy_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(load_tensors(tmp_path / "a.npy")["tensor"].numpy(), np.arange(6).reshape(2, 3))


def test_direction_files_of_stit_and_e4e(golden: Golden) -> None:
    stit = load_tensors(golden("direction_interfacegan_18x512_float64.npy"))["tensor"]
    assert stit.shape == (18, 512) and stit.dtype == torch.float64
    np.testing.assert_array_equal(stit.numpy(), np.load(golden("direction_interfacegan_18x512_float64.npy")))
    e4e = load_tensors(golden("direction_e4e_1x512.pt"))["tensor"]
    assert torch.equal(e4e, torch.load(golden("direction_e4e_1x512.pt"), weights_only=True))


def test_what_is_read_outlives_and_never_alters_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, _saved({"a": torch.arange(8.0)}))
    before = path.read_bytes()
    tensor = load_tensors(path)["a"]
    tensor.add_(1)
    assert path.read_bytes() == before
    path.unlink()
    assert tensor.tolist() == [float(i + 1) for i in range(8)]
