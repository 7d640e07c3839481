"""Edit directions on disk: the named set that ships with the pack, and users' files."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from ..families import SHIPPED_FAMILY
from ..types import EditDirection
from .direction_files import SUFFIXES, Edit, entry_names, is_direction_file, read_direction_file
from .latent import W_FAMILY

SHIPPED_FILE = Path(__file__).parent / "data" / "directions_mobile_stylegan_ffhq.safetensors"
_ENTRY = re.compile(r"(.+)\[(.+)\]", re.DOTALL)


def shipped_directions() -> dict[str, EditDirection]:
    """The named directions that scripts/make_directions.py measured on generated faces, in the order of the file."""
    with safe_open(SHIPPED_FILE, framework="pt") as file:
        settings = json.loads(file.metadata()["directions"])
        return {
            name: EditDirection(name, file.get_tensor(name), W_FAMILY, tuple(entry["depth"]))
            for name, entry in settings.items()
        }


def expression_directions(family: str) -> dict[str, EditDirection]:
    """The shipped directions, if codes of `family` are those on whose faces they were measured; else none."""
    return shipped_directions() if family == SHIPPED_FAMILY else {}


def list_directions(folders: Iterable[Path] = ()) -> dict[str, Path]:
    """Every direction by the name a user picks: the shipped ones first, then the files in `folders`.

    A file with several is listed as "file.pt[entry]" for each of them.
    """
    found = dict.fromkeys(shipped_directions(), SHIPPED_FILE)
    for folder in folders:
        if folder.is_dir():
            for path in sorted(path for path in folder.rglob("*") if is_direction_file(path)):
                name = path.relative_to(folder).as_posix()
                found |= dict.fromkeys([f"{name}[{entry}]" for entry in _entries(path)] or [name], path)
    return found


def load_direction(name: str | Path, folders: Iterable[Path] = (), *, family: str = W_FAMILY) -> Edit:
    """One direction, by shipped name, by file name in `folders`, or by path; "file.pt[entry]" for one of several.

    Args:
        family: of the connected generator. A file that does not name its own is taken to fit it, and with equal rows
            all generators of its data set.
    Raises:
        FileNotFoundError: neither a shipped name nor a file; the message lists names and folders.
        ValueError: the file holds nothing to edit with, or several directions and `name` does not say which.
    """
    shipped = shipped_directions()
    if str(name) in shipped:
        return shipped[str(name)]
    folders = [Path(folder) for folder in folders]
    match = _ENTRY.fullmatch(str(name))
    for file, entry in ((str(name), None), *([(match[1], match[2])] if match else [])):
        for path in (*(folder / file for folder in folders), Path(file)):
            if path.is_file():
                return _picked(path, entry, family)
    searched = "".join(f"\n  {folder}" for folder in folders) or " none"
    raise FileNotFoundError(
        f"No direction named {str(name)!r}. Shipped directions: {', '.join(shipped)}. Folders searched for files "
        f"({', '.join(SUFFIXES)}):{searched}"
    )


def _picked(path: Path, entry: str | None, family: str) -> Edit:
    found = read_direction_file(path, family)
    if entry is None and len(found) == 1:
        return next(iter(found.values()))
    if entry is not None and entry in found:
        return found[entry]
    names = ", ".join(list(found)[:8]) + (f", ... ({len(found)} in all)" if len(found) > 8 else "")
    asked = "" if entry is None else f", but none called {entry!r}"
    raise ValueError(
        f"{path.name} holds several directions ({names}){asked}. Say which one: {path.name}[{next(iter(found))}]."
    )


def _entries(path: Path) -> tuple[str, ...]:
    """`entry_names`, read anew only when the file was replaced: this is asked whenever the list is shown."""
    stat = path.stat()
    return _entries_of(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=512)
def _entries_of(path: Path, _mtime_ns: int, _size: int) -> tuple[str, ...]:
    return tuple(entry_names(path))
