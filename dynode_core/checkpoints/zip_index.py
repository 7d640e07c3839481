"""Where the members of an uncompressed zip archive lie, without unpacking anything.

torch writes its archives uncompressed (each record can be mapped), so a compressed member is never inflated: that is
how a small file becomes a huge one. Format: PKWARE APPNOTE 6.3, sections 4.3
and 4.4 (central directory, zip64).
"""

from __future__ import annotations

import struct

from .errors import CheckpointError

_MAX_MEMBERS = 100_000
_CUT_SHORT = (
    "The archive is cut short or damaged ({reason}). If it was downloaded, the download did not finish: get it again."
)


def stored_members(data: memoryview) -> dict[str, memoryview | None]:
    """Member name to its bytes, as views of `data`; None for a member that is compressed.

    Raises:
        CheckpointError: no directory at the end (cut short), or a member lies outside the file.
    """
    count, size, offset, shift = _directory(data)
    if count > _MAX_MEMBERS:
        raise CheckpointError(f"The archive announces {count} members; a checkpoint has at most {_MAX_MEMBERS}.")
    members: dict[str, memoryview | None] = {}
    position, end = offset + shift, offset + shift + size
    for _ in range(count):
        if position + 46 > end or bytes(data[position : position + 4]) != b"PK\x01\x02":
            raise CheckpointError(_CUT_SHORT.format(reason="its directory is incomplete"))
        method, packed, plain, name_bytes, extra_bytes, note_bytes, local = _entry(data, position)
        name_end = position + 46 + name_bytes
        name = str(data[position + 46 : name_end], "utf-8", "replace")
        packed, plain, local = _wide_sizes(data[name_end : name_end + extra_bytes], packed, plain, local)
        is_stored = method == 0 and packed == plain
        members[name] = _body(data, local + shift, plain, name) if is_stored else None
        position = name_end + extra_bytes + note_bytes
    return members


def _entry(data: memoryview, position: int) -> tuple[int, int, int, int, int, int, int]:
    fields = struct.unpack("<HHHHHHIIIHHHHHII", data[position + 4 : position + 46])
    return fields[3], fields[7], fields[8], fields[9], fields[10], fields[11], fields[15]


def _directory(data: memoryview) -> tuple[int, int, int, int]:
    """Number of members, size and offset of the central directory, and how many bytes precede the archive."""
    tail_start = max(0, len(data) - 65557)
    found = bytes(data[tail_start:]).rfind(b"PK\x05\x06")
    place = tail_start + found
    if found < 0 or place + 22 > len(data):
        raise CheckpointError(_CUT_SHORT.format(reason="the directory at its end is missing"))
    count, size, offset = struct.unpack("<HII", data[place + 10 : place + 20])
    directory_end = place
    locator = place - 20
    if locator >= 0 and bytes(data[locator : locator + 4]) == b"PK\x06\x07":
        wide = locator - 56
        if wide < 0 or bytes(data[wide : wide + 4]) != b"PK\x06\x06":
            raise CheckpointError(_CUT_SHORT.format(reason="its 64-bit directory is damaged"))
        count, size, offset = struct.unpack("<QQQ", data[wide + 32 : wide + 56])
        directory_end = wide
    elif count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        raise CheckpointError(_CUT_SHORT.format(reason="its 64-bit directory is missing"))
    shift = directory_end - size - offset
    if shift < 0:
        raise CheckpointError(_CUT_SHORT.format(reason="its directory points outside the file"))
    return count, size, offset, shift


def _wide_sizes(extra: memoryview, packed: int, plain: int, local: int) -> tuple[int, int, int]:
    """Replace the 32-bit fields that say "see the zip64 extra field"."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[position : position + 4])
        body = extra[position + 4 : position + 4 + length]
        if kind == 1:
            numbers = list(struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8]))
            plain = numbers.pop(0) if plain == 0xFFFFFFFF and numbers else plain
            packed = numbers.pop(0) if packed == 0xFFFFFFFF and numbers else packed
            local = numbers.pop(0) if local == 0xFFFFFFFF and numbers else local
        position += 4 + length
    return packed, plain, local


def _body(data: memoryview, local: int, size: int, name: str) -> memoryview:
    if local + 30 > len(data) or bytes(data[local : local + 4]) != b"PK\x03\x04":
        raise CheckpointError(_CUT_SHORT.format(reason=f"member {name[:80]!r} lies outside it"))
    name_bytes, extra_bytes = struct.unpack("<HH", data[local + 26 : local + 30])
    start = local + 30 + name_bytes + extra_bytes
    if start + size > len(data):
        raise CheckpointError(_CUT_SHORT.format(reason=f"member {name[:80]!r} is incomplete"))
    return data[start : start + size]
