"""Trajectory files: one safetensors file whose metadata is JSON. Nothing in it is ever executed.

Version 2. Tensors: field.*, w_plus, times, frame_times; subspace.* for closed-form fields; tuning*
where the generator was tuned (see `tuning_files`). Metadata key "trajectory": everything else, the kind of field among
it.
"""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..tuning_files import pack_tuning, unpack_tuning
from ..types import LatentTrajectory
from .code_space import CodeSpace
from .networks import CodeNetwork, NetworkField, ReleasedField
from .subspace import Subspace
from .vector_field import PathField, WindowedField

FORMAT, VERSION = "dynode trajectory", 2
READABLE = (1, 2)
"""Version 1 holds closed-form fields only."""


def save_trajectory(trajectory: LatentTrajectory, path: Path | str) -> None:
    """Write a trajectory; the file appears whole or not at all.

    Raises:
        ValueError: Its vector field is of a kind that files do not hold.
    """
    from safetensors.torch import save

    path = Path(path)
    field, subspace = trajectory.vector_field, trajectory.subspace
    tensors: dict[str, Tensor] = {f"field.{name}": value for name, value in field.state_dict().items()}
    if isinstance(subspace, Subspace):
        tensors |= {f"subspace.{name}": getattr(subspace, name) for name in ("mean", "axes", "spread")}
    tensors |= {"w_plus": trajectory.w_plus, "times": torch.as_tensor(trajectory.times, dtype=torch.float64)}
    tensors["frame_times"] = torch.as_tensor(trajectory.frame_times, dtype=torch.float64)
    tensors["w_plus_0"] = trajectory.w_plus_0
    tensors |= pack_tuning(trajectory.tuning)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "field": _field_header(field),
        "subspace": {
            "kind": "axes" if isinstance(subspace, Subspace) else "whole codes",
            "scale": subspace.scale,
            "code_shape": list(subspace.code_shape),
        },
        "fps": [trajectory.fps.numerator, trajectory.fps.denominator],
        "certificate": dict(trajectory.certificate),
        **{name: getattr(trajectory, name) for name in ("family", "generator_id", "method", "rtol", "atol")},
    }
    data = save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, _metadata(header))
    part = path.with_name(f"{path.name}.{os.getpid()}.part.safetensors")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _field_header(field: object) -> dict[str, Any]:
    """What the tensors of a field do not tell."""
    if isinstance(field, WindowedField):
        names = ("speed", "rank", "num_frequencies", "seed")
        return {"kind": "closed form", **{name: getattr(field, name) for name in names}}
    if isinstance(field, NetworkField):
        if isinstance(field.network, ReleasedField):
            return {"kind": "released network", "span": field.span, "rows": field.network.rows}
        if isinstance(field.network, CodeNetwork):
            return {"kind": "code network", "span": field.span}
    raise ValueError(f"Files hold closed-form fields and trained networks, but the vector field is {field!r}.")


def _network_from(kind: dict[str, Any], tensors: dict[str, Tensor]) -> NetworkField:
    """A trained network; its sizes are those of the tensors that are there."""
    starts, size = tensors["starts"], tensors["starts"].shape[1]
    tensors.setdefault("moving", torch.ones(len(starts), dtype=torch.bool))  # files of one window lack it
    weights = [value for name, value in tensors.items() if name.endswith(".weight")]
    network: nn.Module
    if kind["kind"] == "released network":
        network = ReleasedField(int(kind["rows"]), size // int(kind["rows"]), depth=len(weights))
    else:
        first = tensors["network.model.0.weight"]
        network = CodeNetwork(size, hidden=len(first), depth=len(weights), use_time=first.shape[1] == size + 1)
    network.requires_grad_(False)
    return NetworkField(network, starts, tensors["ends"], float(kind["span"]), tensors["edges"], tensors["moving"])


def _field_from(kind: dict[str, Any], tensors: dict[str, Tensor]) -> PathField:
    """The field that a header and the tensors describe."""
    field: PathField
    if kind.get("kind", "closed form") == "closed form":
        rank, waves = tensors["heads"].shape[-1], len(tensors["frequencies"])
        field = WindowedField(tensors["edges"], rank, waves, float(kind["speed"]), seed=int(kind["seed"]))
    else:
        field = _network_from(kind, tensors)
    field.load_state_dict(tensors)
    return field


def _space_from(kind: dict[str, Any], tensors: dict[str, Tensor]) -> Subspace | CodeSpace:
    rows, channels = (int(size) for size in kind["code_shape"])
    if kind.get("kind", "axes") == "whole codes":
        return CodeSpace(float(kind["scale"]), (rows, channels))
    mean, axes, spread = (tensors[f"subspace.{name}"] for name in ("mean", "axes", "spread"))
    return Subspace(mean, axes, float(kind["scale"]), spread, (rows, channels))


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    return {"trajectory": json.dumps(header, allow_nan=True)}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"There is no trajectory file {path}. Save one first, or correct the path.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        header = json.loads(metadata.get("trajectory", "null"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}. Save the trajectory again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is no trajectory file: its metadata lacks the format {FORMAT!r}.")
    if header.get("version") not in READABLE:
        raise ValueError(
            f"{path} has version {header.get('version')} of the trajectory format, but this program reads versions "
            f"{READABLE[0]} to {VERSION}. Update the program, or fit the trajectory again."
        )
    return header, tensors


def load_trajectory(path: Path | str) -> LatentTrajectory:
    """Read what `save_trajectory` wrote: it solves to the same codes.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another kind of file, an unknown version, or a damaged one.
    """
    path = Path(path)
    header, tensors = _read(path)
    try:
        own = {name[6:]: value for name, value in tensors.items() if name.startswith("field.")}
        field, subspace = _field_from(header["field"], own), _space_from(header["subspace"], tensors)
        return LatentTrajectory(
            vector_field=field,
            subspace=subspace,
            w_plus_0=tensors["w_plus_0"],
            times=tensors["times"].numpy(),
            w_plus=tensors["w_plus"],
            frame_times=tensors["frame_times"].numpy(),
            fps=Fraction(*header["fps"]),
            certificate=header["certificate"],
            tuning=unpack_tuning(tensors),
            **{name: header[name] for name in ("family", "generator_id", "method", "rtol", "atol")},
        )
    except (KeyError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is a damaged trajectory file ({error}). Save the trajectory again.") from error
