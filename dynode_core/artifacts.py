"""Files between the single steps of the command line: one safetensors file per value, readable without this pack.

Convention: arrays are stored under their field names; everything else is JSON under the metadata key "dynode".
Trajectories have the format of `ode.files`. Nothing in such a file is ever executed.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .ode.files import load_trajectory, save_trajectory
from .tuning_files import pack_tuning, unpack_tuning
from .types import (
    AlignedClip,
    EditDirection,
    EditedLatent,
    FaceTexture,
    FaceTrack,
    InvertedClip,
    LatentTrajectory,
    TrajectorySample,
)
from .video import FileClip

VERSION = 1
_METADATA_KEY = "dynode"
_TRAJECTORY_KEY = "trajectory"
Artifact = AlignedClip | InvertedClip | LatentTrajectory | EditedLatent | FaceTexture | TrajectorySample
_Arrays = dict[str, Tensor]
_Facts = dict[str, Any]


@dataclass(frozen=True)
class _Kind:
    """How one type becomes arrays and facts, and back."""

    name: str
    made_by: str
    type: type
    pack: Callable[[Any], tuple[_Arrays, _Facts]]
    unpack: Callable[[_Arrays, _Facts], Any]


def save_artifact(value: Artifact, path: Path | str) -> None:
    """Write `value` so that an interrupted write leaves no half file under `path`.

    Raises:
        ValueError: `value` is of no type that has a file form.
    """
    kind = next((kind for kind in _KINDS if isinstance(value, kind.type)), None)
    if kind is None:
        raise ValueError(f"A {type(value).__name__} has no file form; expected one of {_names()}.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, LatentTrajectory):
        save_trajectory(value, path)
        return
    arrays, facts = kind.pack(value)
    header = json.dumps({"kind": kind.name, "version": VERSION, **facts}, sort_keys=True)
    _write(arrays, {_METADATA_KEY: header}, path)


def save_direction(direction: EditDirection, path: Path | str) -> None:
    """Write a direction as the one tensor of a safetensors file, which `editing.load_direction` reads.

    Raises:
        ValueError: `path` has another ending.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"The file to write should end in .safetensors, but is {path.name!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write({"direction": direction.direction}, {"name": direction.name, "family": direction.family}, path)


def load_artifact(path: Path | str, expected: type | tuple[type, ...] = ()) -> Any:
    """Read what `save_artifact` wrote.

    Args:
        path: the file.
        expected: the type or types that the caller can use; empty for any.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no artifact, is of a newer version, or holds another type than `expected`.
    """
    arrays, header = _read(Path(path))
    kind = next((kind for kind in _KINDS if kind.name == header.get("kind")), None)
    if kind is None:
        raise ValueError(f"{path} holds a {header.get('kind')!r}; expected one of {_names()}.")
    if header["version"] > VERSION:
        raise ValueError(
            f"{path} was written in version {header['version']} of the format, but this pack reads up to version "
            f"{VERSION}. "
            "Update ComfyUI-DynODE."
        )
    wanted = expected if isinstance(expected, tuple) else (expected,)
    if wanted and kind.type not in wanted:
        makers = " or ".join(other.made_by for other in _KINDS if other.type in wanted)
        raise ValueError(
            f"{path} holds a {kind.name} (made by `{kind.made_by}`), but here a file made by {makers} is needed."
        )
    if kind.type is LatentTrajectory:
        return load_trajectory(path)
    try:
        return kind.unpack(arrays, header)
    except KeyError as missing:
        raise ValueError(f"{path} is damaged: {missing} is missing. Make it again with `{kind.made_by}`.") from missing


def is_artifact(path: Path | str) -> bool:
    """Whether a file was written by `save_artifact`, whatever it holds: False for a damaged or foreign file."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return bool({_METADATA_KEY, _TRAJECTORY_KEY} & (file.metadata() or {}).keys())
    except (SafetensorError, OSError):
        return False


def _write(arrays: _Arrays, metadata: dict[str, str], path: Path) -> None:
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        tensors = {name: array.detach().cpu().contiguous() for name, array in arrays.items()}
        save_file(tensors, str(part), metadata=metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> tuple[_Arrays, _Facts]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except SafetensorError as reason:
        raise ValueError(f"{path} is not a safetensors file, or it is cut short ({reason}).") from reason
    if _TRAJECTORY_KEY in metadata:
        return arrays, {"kind": "trajectory", "version": VERSION}
    if _METADATA_KEY not in metadata:
        raise ValueError(f"{path} was not written by ComfyUI-DynODE: it has no {_METADATA_KEY!r} metadata.")
    header = json.loads(metadata[_METADATA_KEY])
    if not isinstance(header, dict) or not isinstance(header.get("version"), int):
        raise ValueError(f"{path} has damaged {_METADATA_KEY!r} metadata.")
    return arrays, header


def _names() -> str:
    return ", ".join(kind.name for kind in _KINDS)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, order="C"))  # a copy: the format knows no tensors that share memory


def plain_facts(value: Any) -> Any:
    """Reports hold NumPy and torch numbers: make them JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain_facts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain_facts(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


_TRACK = ("landmarks", "boxes", "scores", "detected")
_OPTIONAL_TRACK = tuple(field.name for field in fields(FaceTrack) if field.name not in _TRACK)


def _pack_aligned(value: AlignedClip) -> tuple[_Arrays, _Facts]:
    clip = value.clip
    if not isinstance(clip, FileClip):
        raise ValueError("Only the alignment of a video file can be saved; this clip is in memory.")
    track = value.track
    arrays = {name: _tensor(getattr(track, name)) for name in _TRACK}
    arrays |= {name: _tensor(getattr(track, name)) for name in _OPTIONAL_TRACK if getattr(track, name) is not None}
    facts = {
        "clip": {
            "path": str(Path(clip.path).resolve()),
            "clip_id": clip.clip_id,
            "part_s": list(clip.part_s),
        },
        "crop_size": value.crop_size,
    }
    return arrays | {"quads": _tensor(value.quads)}, facts


def _unpack_aligned(arrays: _Arrays, facts: _Facts) -> AlignedClip:
    source = facts["clip"]
    if not Path(source["path"]).is_file():
        raise FileNotFoundError(
            f"The alignment belongs to the video {source['path']}, which is not there any more. Put it back, or "
            f"align again."
        )
    start_s, duration_s = source["part_s"]
    clip = FileClip(Path(source["path"]), start_s=start_s, duration_s=duration_s)
    if clip.clip_id != source["clip_id"]:
        raise ValueError(f"{source['path']} has changed since it was aligned. Align it again.")
    optional = {name: arrays[name].numpy() for name in _OPTIONAL_TRACK if name in arrays}
    track = FaceTrack(
        landmarks=arrays["landmarks"].numpy(),
        boxes=arrays["boxes"].numpy(),
        scores=arrays["scores"].numpy(),
        detected=arrays["detected"].numpy(),
        **optional,
    )
    return AlignedClip(clip=clip, quads=arrays["quads"].numpy(), track=track, crop_size=facts["crop_size"])


def _pack_inverted(value: InvertedClip) -> tuple[_Arrays, _Facts]:
    arrays = {name: _tensor(getattr(value, name)) for name in ("times", "frame_indices", "loss", "frame_times")}
    arrays |= {} if value.cuts_s is None else {"cuts_s": _tensor(value.cuts_s)}
    facts = {"fps": str(value.fps), "family": value.family, "generator_id": value.generator_id}
    return arrays | {"w_plus": value.w_plus} | pack_tuning(value.tuning), facts | {"report": plain_facts(value.report)}


def _unpack_inverted(arrays: _Arrays, facts: _Facts) -> InvertedClip:
    return InvertedClip(
        w_plus=arrays["w_plus"],
        times=arrays["times"].numpy(),
        frame_indices=arrays["frame_indices"].numpy(),
        loss=arrays["loss"].numpy(),
        frame_times=arrays["frame_times"].numpy(),
        fps=Fraction(facts["fps"]),
        family=facts["family"],
        generator_id=facts["generator_id"],
        report=facts["report"],
        tuning=unpack_tuning(arrays),
        cuts_s=arrays["cuts_s"].numpy() if "cuts_s" in arrays else None,
    )


def _pack_latent(value: EditedLatent) -> tuple[_Arrays, _Facts]:
    arrays = {"w_plus_0": value.w_plus_0.clone(), "base_w_plus_0": value.base_w_plus_0.clone()}
    return arrays | pack_tuning(value.tuning), {"edits": list(value.edits), "family": value.family}


def _unpack_latent(arrays: _Arrays, facts: _Facts) -> EditedLatent:
    edits, tuning = tuple(facts["edits"]), unpack_tuning(arrays)
    return EditedLatent(arrays["w_plus_0"], arrays["base_w_plus_0"], edits, facts["family"], tuning)


def _pack_texture(value: FaceTexture) -> tuple[_Arrays, _Facts]:
    arrays = {"shown": value.shown, "detail": value.detail, "alpha": value.alpha, "landmarks": _tensor(value.landmarks)}
    return {name: array.clone() for name, array in arrays.items()}, {"frame_index": int(value.frame_index)}


def _unpack_texture(arrays: _Arrays, facts: _Facts) -> FaceTexture:
    landmarks = arrays["landmarks"].numpy()
    return FaceTexture(arrays["shown"], arrays["detail"], arrays["alpha"], landmarks, facts["frame_index"])


def _pack_sample(value: TrajectorySample) -> tuple[_Arrays, _Facts]:
    arrays = {
        "w_plus": value.w_plus[:].clone(),
        "base_w_plus": value.base_w_plus[:].clone(),  # may share memory with w_plus, which the format does not know
        "times": _tensor(value.times),
    }
    facts = {"fps": str(value.fps), "family": value.family, "generator_id": value.generator_id}
    return arrays | pack_tuning(value.tuning), facts | {
        "nfe": int(value.nfe),
        "status": value.status,
        "edits": list(value.edits),
    }


def _unpack_sample(arrays: _Arrays, facts: _Facts) -> TrajectorySample:
    same = torch.equal(arrays["w_plus"], arrays["base_w_plus"])
    return TrajectorySample(
        w_plus=arrays["w_plus"],
        base_w_plus=arrays["w_plus"] if same else arrays["base_w_plus"],
        times=arrays["times"].numpy(),
        fps=Fraction(facts["fps"]),
        family=facts["family"],
        generator_id=facts["generator_id"],
        nfe=facts["nfe"],
        status=facts["status"],
        edits=tuple(facts["edits"]),
        tuning=unpack_tuning(arrays),
    )


def _elsewhere(*_: Any) -> Any:
    raise NotImplementedError("ode.files writes and reads trajectories.")


_KINDS = (
    _Kind("alignment", "align", AlignedClip, _pack_aligned, _unpack_aligned),
    _Kind("codes", "invert", InvertedClip, _pack_inverted, _unpack_inverted),
    _Kind("trajectory", "fit", LatentTrajectory, _elsewhere, _elsewhere),
    _Kind("latent", "edit", EditedLatent, _pack_latent, _unpack_latent),
    _Kind("texture", "picture --texture", FaceTexture, _pack_texture, _unpack_texture),
    _Kind("sample", "solve", TrajectorySample, _pack_sample, _unpack_sample),
)
