"""Edit directions on disk: the named set that ships with the pack, and users' files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from ..checkpoints.tensors import load_tensors
from ..families import w_family
from ..types import EditDirection
from .latent import W_FAMILY

SHIPPED_FILE = Path(__file__).parent / "data" / "directions_mobile_stylegan_ffhq.safetensors"
SHIPPED_FAMILY = "mobile_stylegan-ffhq-1024"
SUFFIXES = (".safetensors", ".npy", ".pt", ".pth")


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
    """Every direction by the name a user picks: the shipped ones first, then the files in `folders`."""
    found = dict.fromkeys(shipped_directions(), SHIPPED_FILE)
    for folder in folders:
        if folder.is_dir():
            for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
                found[path.relative_to(folder).as_posix()] = path
    return found


def load_direction(name: str | Path, folders: Iterable[Path] = (), *, family: str = W_FAMILY) -> EditDirection:
    """One direction, by shipped name, by file name in `folders`, or by path.

    Args:
        family: of the connected generator. A file that does not name its own is taken to fit it, and with equal rows
            all generators of its data set.
    Raises:
        FileNotFoundError: neither a shipped name nor a file; the message lists names and folders.
        ValueError: the file holds no direction of shape (D,), (1, D), (L, D) or (1, L, D).
    """
    shipped = shipped_directions()
    if str(name) in shipped:
        return shipped[str(name)]
    folders = [Path(folder) for folder in folders]
    for path in (*(folder / name for folder in folders), Path(name)):
        if path.is_file():
            return _direction_from(path, family)
    searched = "".join(f"\n  {folder}" for folder in folders) or " none"
    raise FileNotFoundError(
        f"No direction named {str(name)!r}. Shipped directions: {', '.join(shipped)}. Folders searched for files "
        f"({', '.join(SUFFIXES)}):{searched}"
    )


def _direction_from(path: Path, family: str) -> EditDirection:
    tensors = load_tensors(path)
    if len(tensors) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:4])
        raise ValueError(f"{path} should hold one direction, but holds {len(tensors)} tensors ({shapes}, …).")
    rows = next(iter(tensors.values())).float()
    if rows.ndim == 3 and len(rows) == 1:
        rows = rows[0]
    if rows.ndim == 2 and len(rows) == 1:
        rows = rows[0]
    if rows.ndim not in (1, 2):
        raise ValueError(f"{path} should hold a direction of shape (D,) or (L, D), but holds {tuple(rows.shape)}.")
    named = _named_family(path)
    equal_rows = rows.ndim == 1 or bool((rows == rows[:1]).all())
    return EditDirection(path.stem, rows, named or (w_family(family) if equal_rows else family))


def _named_family(path: Path) -> str | None:
    """The family that a file of ours says in its metadata."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("family") or None
