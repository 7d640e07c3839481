"""The three ways in which torch and NVIDIA put tensors into pickles.

- Zip archive (torch >= 1.6): `data.pkl` points at members `data/KEY`.
- Legacy stream (torch < 1.6): magic number, protocol, system facts, object, storage keys, then each storage.
- Nested stream (tensors pickled outside torch.save, as in NVIDIA's .pkl): each storage is a legacy stream of its own
  inside a byte string, handed to `torch.storage._load_from_bytes`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from .allow_list import ALLOWED
from .budget import Budget
from .errors import CheckpointError
from .safe_pickle import Builder, SafeUnpickler
from .torch_values import Storage, storage_of

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_torch_archive(members: Mapping[str, memoryview], prefix: str, budget: Budget) -> Any:
    """The object of a zip archive written by `torch.save`; `prefix` is the folder name inside, with its slash.

    Raises:
        CheckpointError: a storage is missing or has another size than announced; big-endian files.
    """
    order = members.get(f"{prefix}byteorder", b"little")
    if bytes(order).strip() != b"little":
        raise CheckpointError("The file was written on a big-endian machine, which is not read.")
    storages: dict[str, Storage] = {}

    def persistent_load(key: Any) -> Storage:
        kind, name, numel = _storage_key(key)
        if name not in storages:
            storage = storage_of(kind, numel)
            member = members.get(f"{prefix}data/{name}")
            if member is None:
                raise CheckpointError(
                    f"The archive lacks the data of a tensor (member data/{name[:40]}): it is damaged."
                )
            storage.bind(member, budget)
            storages[name] = storage
        return storages[name]

    return SafeUnpickler(members[f"{prefix}data.pkl"], ALLOWED, budget, persistent_load=persistent_load).load()


def read_pickle(data: memoryview, budget: Budget) -> tuple[Any, bool]:
    """The object of a plain pickle or of a legacy torch stream, and whether it was the latter."""
    first = SafeUnpickler(data, OUTER, budget)
    value = first.load()
    if value != LEGACY_MAGIC if isinstance(value, int) else True:
        return value, False
    return _read_legacy(data, first.position, OUTER, budget), True


def _read_legacy(data: memoryview, position: int, allowed: Mapping[str, Builder | None], budget: Budget) -> Any:
    """The object of a legacy stream whose magic number ends at `position`."""
    storages: dict[str, Storage] = {}

    def persistent_load(key: Any) -> Storage:
        kind, name, numel = _storage_key(key)
        if name not in storages:
            storages[name] = storage_of(kind, numel)
        return storages[name]

    values = []
    for _ in range(4):  # protocol, system facts, the object, the keys in the order of their data
        stream = SafeUnpickler(data, allowed, budget, persistent_load=persistent_load, start=position)
        values.append(stream.load())
        position = stream.position
    protocol, facts, root, keys = values
    if not isinstance(protocol, int) or protocol != _LEGACY_PROTOCOL or not isinstance(keys, list):
        raise CheckpointError("The file starts like an old torch file, but does not go on like one: it is damaged.")
    if isinstance(facts, dict) and facts.get("little_endian") is False:
        raise CheckpointError("The file was written on a big-endian machine, which is not read.")
    for name in keys:
        storage = storages.get(name) if isinstance(name, str) else None
        if storage is None or position + 8 > len(data):
            raise CheckpointError("The file ends before its tensors do: it is cut short. Download it again.")
        (numel,) = struct.unpack("<q", data[position : position + 8])
        end = position + 8 + storage.numel * storage.dtype.itemsize
        if numel != storage.numel or end > len(data):
            raise CheckpointError("The file ends before its tensors do, or is damaged. Download it again.")
        storage.bind(data[position + 8 : end], budget)
        position = end
    return root


def _storage_key(key: Any) -> tuple[Any, str, Any]:
    """Kind, name and element count of a persistent id ("storage", kind, name, device, numel[, view])."""
    if (
        not isinstance(key, tuple)
        or len(key) < 5
        or not isinstance(key[0], (str, bytes))
        or not isinstance(key[2], str)
    ):
        raise CheckpointError("The file points at tensor data in a way that torch does not.")
    if len(key) > 5 and key[5] is not None:
        raise CheckpointError("The file holds storages that are views of others (torch < 0.4), which is not read.")
    return key[1], key[2], key[4]


def _load_from_bytes(args: tuple[Any, ...], budget: Budget) -> Any:
    """The storage inside a byte string. Streams nested once more are refused with everything else in `ALLOWED`."""
    if not args or not isinstance(args[0], (bytes, memoryview)):
        raise CheckpointError("The file holds a nested tensor that is no byte string.")
    data = memoryview(args[0])
    first = SafeUnpickler(data, ALLOWED, budget)
    value = first.load()
    if not isinstance(value, int) or value != LEGACY_MAGIC:
        raise CheckpointError("The file holds a nested tensor that torch did not write.")
    return _read_legacy(data, first.position, ALLOWED, budget)


OUTER: dict[str, Builder | None] = {**ALLOWED, "torch.storage._load_from_bytes": _load_from_bytes}
"""What a stream that is not itself nested may name."""
