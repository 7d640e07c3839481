"""What a direction file of this or another project holds, told by names and shapes; no code in it is run.

| project | file | becomes |
|---|---|---|
| InterFaceGAN, STIT, e4e | .npy or .pt (D,), (1, D), (L, D), (1, L, D) | one direction |
| GANSpace | .npz with lat_comp, lat_stdev; .pt with comp, std (as e4e ships it) | a direction per component |
| latent transformer | T_net state dict, dense.0 to dense.17 | a network |
| StyleCLIP mapper | checkpoint with mapper.* | a network |
| any, this pack too | several named directions in a .pt or .safetensors | each by its name |
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoints.npz import load_npz, npz_names
from ..checkpoints.tensors import load_tensors
from ..families import w_family
from ..types import EditDirection
from .networks import NetworkEdit, network_edit

Edit = EditDirection | NetworkEdit
SUFFIXES = (".safetensors", ".npy", ".npz", ".pt", ".pth", ".pth.tar")
MOST_ROWS = 64
"""More rows than any W+ code has."""
MOST_COMPONENTS = 512
_NPZ_NAMES = {"comp": ("lat_comp", "comp"), "std": ("lat_stdev", "std")}
_LISTED_BYTES = 16 << 20
"""Larger .pt files (networks, whole checkpoints) are not opened to list what they hold."""
_STYLE_SPACE_WIDTH = 6048
"""Style channels of a 1024 px StyleGAN2 without those of its colour outputs."""


def is_direction_file(path: Path) -> bool:
    """Whether the name is that of a kind of file that may hold directions."""
    return path.name.lower().endswith(SUFFIXES)


def read_direction_file(path: Path, family: str) -> dict[str, Edit]:
    """Everything to edit with in a file, by its name in there; "" if it is the only one.

    Args:
        family: of the connected generator. A file that does not name its own is taken to fit it, and with equal rows
            all generators of its data set.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds nothing to edit with; says what it holds instead.
    """
    tensors = _tensors_of(path)
    network = network_edit(path.stem, tensors)
    if network is not None:
        return {"": network}
    components = _components(tensors)
    if components is not None:
        return {str(i): _direction(path, f"{path.stem}[{i}]", row, family) for i, row in enumerate(components)}
    _refuse_style_space(path, tensors)
    rows = {name: squeezed(tensor) for name, tensor in tensors.items()}
    usable = {name: tensor for name, tensor in rows.items() if tensor is not None}
    if not usable:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:4])
        raise ValueError(
            f"{path.name} should hold a direction of shape (D,), (1, D), (L, D) or (1, L, D), GANSpace components, a "
            f"latent transformer or a StyleCLIP mapper, but holds {len(tensors)} tensors ({shapes})."
        )
    settings = _settings(path)
    if len(usable) == 1:
        name, tensor = next(iter(usable.items()))
        return {"": _direction(path, path.stem, tensor, family, settings.get(name))}
    return {
        name: _direction(path, f"{path.stem}[{name}]", tensor, family, settings.get(name))
        for name, tensor in usable.items()
    }


def save_directions(directions: Sequence[EditDirection], path: Path) -> None:
    """Write directions, with their families and the depth they act on, as a file that `read_direction_file` reads.

    Raises:
        ValueError: none, two of one name, or `path` does not end in .safetensors.
    """
    names = [direction.name for direction in directions]
    if path.suffix != ".safetensors" or not names or len(set(names)) != len(names):
        raise ValueError(
            "Directions are written to a .safetensors file, each with a name of its own, but the file is "
            f"{path.name!r} and the names are {names}."
        )
    settings = {d.name: {"depth": list(d.depth), "family": d.family} for d in directions}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        tensors = {direction.name: direction.direction.contiguous().clone() for direction in directions}
        save_file(tensors, part, {"directions": json.dumps(settings)})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def entry_names(path: Path) -> list[str]:
    """Names of the directions in a file with several; empty for one with a single one, or that can't be listed fast.

    Never raises for what is in the file: whoever picks it is told when it is read.
    """
    try:
        if path.suffix == ".npz" or (path.suffix != ".npy" and path.stat().st_size <= _LISTED_BYTES):
            names = list(read_direction_file(path, "listing"))
            return [] if names == [""] else names
    except (OSError, ValueError):
        return []
    return []


def squeezed(tensor: Tensor) -> Tensor | None:
    """`(D,)` or `(L, D)` float32 of a tensor that can be a direction, else None."""
    if not tensor.is_floating_point():
        return None
    rows = tensor.float()
    while rows.ndim > 1 and len(rows) == 1:
        rows = rows[0]
    fits = rows.ndim in (1, 2) and rows.numel() > 0 and (rows.ndim == 1 or len(rows) <= MOST_ROWS)
    return rows if fits and rows.shape[-1] > 1 else None


def _tensors_of(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".npz":
        return load_tensors(path)
    wanted = [name for names in _NPZ_NAMES.values() for name in names]
    names = npz_names(path)
    found = load_npz(path, [name for name in names if name in wanted] or names[:MOST_ROWS])
    if not found:
        raise ValueError(f"{path.name} holds no arrays.")
    return found


def _components(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """`(n, D)` GANSpace components times their standard deviations: strength 1 is one deviation."""
    short = {name.rsplit(".", 1)[-1]: tensor for name, tensor in tensors.items()}
    parts = [next((short[name] for name in names if name in short), None) for names in _NPZ_NAMES.values()]
    comp, std = parts
    if comp is None or std is None or comp.ndim < 2 or std.numel() != len(comp) or len(comp) > MOST_COMPONENTS:
        return None
    if comp[0].numel() != comp.shape[-1]:
        return None
    return comp.float().reshape(len(comp), -1) * std.float().reshape(-1, 1)


def _refuse_style_space(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for tensor in tensors.values():
        if tensor.ndim in (1, 2) and tensor.shape[0] == _STYLE_SPACE_WIDTH:
            raise ValueError(
                f"{path.name} holds a table of shape {tuple(tensor.shape)} over the {_STYLE_SPACE_WIDTH} style "
                "channels of StyleGAN2 (StyleCLIP's global directions, fs3.npy): such directions change single "
                "channels inside the generator and need CLIP to be turned into an edit, while this node changes W+ "
                "codes. Use a StyleCLIP mapper, an InterFaceGAN or a GANSpace file."
            )


def _direction(
    path: Path, name: str, rows: Tensor, family: str, settings: Mapping[str, Any] | None = None
) -> EditDirection:
    equal_rows = rows.ndim == 1 or bool((rows == rows[:1]).all())
    said = settings or {}
    own = said.get("family") or _metadata(path).get("family") or (w_family(family) if equal_rows else family)
    return EditDirection(name, rows, own, said.get("depth", (0.0, 1.0)))


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _settings(path: Path) -> dict[str, dict[str, Any]]:
    """Depth and family of each direction of a file that `save_directions` wrote."""
    try:
        entries = json.loads(_metadata(path).get("directions", "{}"))
        return {
            name: {
                "depth": (float(entry["depth"][0]), float(entry["depth"][1])),
                "family": str(entry.get("family", "")),
            }
            for name, entry in entries.items()
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}
