"""Trajectory files: one safetensors file whose metadata is JSON. Nothing in it is ever executed.

Version 1. Tensors: field.*, subspace.*, w_plus, times, frame_times; tuning.* where the generator was tuned.
Metadata key "trajectory": everything else.
"""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tuning_files import pack_tuning, unpack_tuning
from ..types import LatentTrajectory
from .subspace import Subspace
from .vector_field import WindowedField

FORMAT, VERSION = "dynode trajectory", 1


def save_trajectory(trajectory: LatentTrajectory, path: Path | str) -> None:
    """Write a trajectory; the file appears whole or not at all.

    Raises:
        ValueError: Its vector field is of a kind that files do not hold.
    """
    from safetensors.torch import save

    path = Path(path)
    field, subspace = trajectory.vector_field, trajectory.subspace
    if not isinstance(field, WindowedField):
        raise ValueError(f"Only closed-form fields can be saved, but the vector field is a {type(field).__name__}.")
    tensors: dict[str, Tensor] = {f"field.{name}": value for name, value in field.state_dict().items()}
    tensors |= {f"subspace.{name}": getattr(subspace, name) for name in ("mean", "axes", "spread")}
    tensors |= {"w_plus": trajectory.w_plus, "times": torch.as_tensor(trajectory.times, dtype=torch.float64)}
    tensors["frame_times"] = torch.as_tensor(trajectory.frame_times, dtype=torch.float64)
    tensors["w_plus_0"] = trajectory.w_plus_0
    tensors |= pack_tuning(trajectory.tuning)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "field": {
            "speed": field.speed,
            "rank": field.rank,
            "num_frequencies": field.num_frequencies,
            "seed": field.seed,
        },
        "subspace": {"scale": subspace.scale, "code_shape": list(subspace.code_shape)},
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
    if header.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {header.get('version')} of the trajectory format, but this program reads version "
            f"{VERSION}. Update the program, or fit the trajectory again."
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
        kind = header["field"]
        field = WindowedField(
            tensors["field.edges"],
            int(kind["rank"]),
            int(kind["num_frequencies"]),
            float(kind["speed"]),
            seed=int(kind["seed"]),
        )
        field.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("field.")})
        rows, channels = header["subspace"]["code_shape"]
        mean, axes, spread = (tensors[f"subspace.{name}"] for name in ("mean", "axes", "spread"))
        subspace = Subspace(mean, axes, float(header["subspace"]["scale"]), spread, (int(rows), int(channels)))
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
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is a damaged trajectory file ({error}). Save the trajectory again.") from error
