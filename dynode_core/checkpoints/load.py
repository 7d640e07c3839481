"""From a file, or from nothing, to a generator."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..families import SHIPPED_FAMILY
from ..generators.mobile_stylegan import MobileStyleGAN
from ..generators.protocol import Generator
from ..generators.stylegan2 import StyleGAN2
from ..generators.stylegan2_config import StyleGAN2Config
from ..model_files import GENERATOR, find_model
from .container import container_kind
from .errors import CheckpointError
from .mobile_stylegan_ir import read_random_face
from .readers import read_generator_file
from .safetensors_header import change_metadata, read_metadata
from .tensors import load_safetensors

FORMAT = "dynode-generator-1"
_CONVERTER = "2"
"""Raised whenever the same file is converted to other tensors or another id: earlier copies are then made again."""
CACHE_SUFFIX = ".dynode.safetensors"
"""Ending of the converted copy that is kept beside a foreign file."""


def load_generator(
    path: Path | str | None = None,
    *,
    folders: Iterable[Path] = (),
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
) -> Generator:
    """Load a generator; without a `path` the default one (MobileStyleGAN FFHQ 1024).

    A foreign file is converted once; later loads read the converted copy until the file changes.

    Args:
        path: generator file of any format that `readers` knows.
        folders: model folders to search for the default generator.
        cache_dir: where the converted copy is kept; default: beside the file if that folder can be written, else
            the user's cache folder.
        device: where the weights go.
    Raises:
        FileNotFoundError: nothing there; the message says how to get it.
        ValueError: the file is damaged, wants to run code, or is of a kind that is not supported.
    """
    source = Path(path) if path is not None else find_model(GENERATOR, folders)
    if not source.is_file():
        raise FileNotFoundError(f"No generator file at {source}.")
    if source.suffix == ".safetensors" and _is_ours(source):
        return read_generator(source).to(device)  # type: ignore[attr-defined]
    return read_generator(_cached_conversion(source, cache_dir)).to(device)  # type: ignore[attr-defined]


def convert_checkpoint(source: Path | str, target: Path | str) -> Path:
    """Convert a generator file of any supported format to one of our safetensors files.

    The copy holds canonical tensors and, as metadata, architecture, configuration, family, generator_id, name and
    SHA-256 of the source. It appears whole or not at all.

    Raises:
        FileNotFoundError: there is no file `source`.
        ValueError: it is damaged, wants to run code, holds no generator, or `target` is no .safetensors file.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".safetensors":
        raise ValueError(f"The converted file should end in .safetensors, but is {target.name!r}.")
    if source.suffix == ".xml":
        state, architecture, family, config = read_random_face(source.parent), "mobile_stylegan", SHIPPED_FAMILY, None
    elif container_kind(_head(source)) == "safetensors" and _is_ours(source):
        tensors, metadata = load_safetensors(source)
        state, architecture, family = tensors, metadata.get("architecture", ""), metadata.get("family", "")
        config = StyleGAN2Config.from_json(metadata["config"]) if "config" in metadata else None
    else:
        read = read_generator_file(source)
        state, architecture, family, config = read.state, read.architecture, read.family, read.config
    write_generator(state, target, family=family, architecture=architecture, source=source, config=config)
    return target


def read_generator(path: Path) -> Generator:
    """Read one of our safetensors files.

    Raises:
        ValueError: it was not written by this pack, or is damaged.
    """
    state, metadata = load_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but not a generator written by this pack (its metadata names the format "
            f"{metadata.get('format')!r}, expected {FORMAT!r}). Convert the original checkpoint with 'convert'."
        )
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path.name} is damaged: {name} holds values that are no finite numbers.")
    family, generator_id = metadata.get("family", ""), metadata.get("generator_id", "")
    try:
        if metadata.get("architecture") == "stylegan2":
            config = StyleGAN2Config.from_json(metadata.get("config", ""))
            return StyleGAN2(state, config, family=family, generator_id=generator_id)
        return MobileStyleGAN(state, family=family, generator_id=generator_id)
    except ValueError as error:
        raise CheckpointError(f"{path.name} is damaged: {error}") from error


def write_generator(
    state: dict[str, Tensor],
    path: Path,
    *,
    family: str,
    architecture: str,
    source: Path,
    config: StyleGAN2Config | None = None,
) -> None:
    """Write canonical tensors with their metadata; the file appears whole or not at all."""
    metadata = {
        "format": FORMAT,
        "architecture": architecture,
        "family": family,
        "generator_id": state_id(state),
        "source": source.name,
        "source_sha256": _sha256(source),
        "source_stamp": _stamp(source),
        "converter": _CONVERTER,
        **({} if config is None else {"config": config.to_json()}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part.{os.getpid()}.safetensors")
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def state_id(state: dict[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 of all tensors in name order, but the mean code: many files lack it, and
    the one that is then measured differs from processor to processor in the last digits.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.rpartition(".")[2] != "w_avg"):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def user_cache_dir() -> Path:
    """`$DYNODE_CACHE`, or the platform's cache folder for this pack."""
    if "DYNODE_CACHE" in os.environ:
        return Path(os.environ["DYNODE_CACHE"])
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dynode"


def _cached_conversion(source: Path, cache_dir: Path | None) -> Path:
    """The converted copy of `source`, made if there is none or the file has changed since."""
    for target in _cache_places(source, cache_dir):
        if target.is_file() and not _is_stale(target, source):
            return target
    for target in _cache_places(source, cache_dir):
        try:
            return convert_checkpoint(source, target)
        except OSError as error:  # a folder that can't be written, a full disk: the next place may do
            if isinstance(error, FileNotFoundError) and not source.is_file():
                raise
            failure = error
    raise OSError(f"No folder could take the converted copy of {source.name}: {failure}")


def _cache_places(source: Path, cache_dir: Path | None) -> list[Path]:
    data = source.with_suffix(".bin") if source.suffix == ".xml" else source
    stat = data.stat() if data.is_file() else source.stat()
    known_by = f"{source.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{_CONVERTER}"
    stamp = hashlib.sha256(known_by.encode()).hexdigest()[:12]
    named = f"{source.stem}-{stamp}.safetensors"
    if cache_dir is not None:
        return [cache_dir / named]
    beside = [source.with_name(source.name + CACHE_SUFFIX)] if source.suffix != ".xml" else []
    return [*beside, user_cache_dir() / "generators" / named]


def _is_stale(target: Path, source: Path) -> bool:
    """Whether the copy beside a file is of an earlier content: judged by size and time, and if these changed (a file
    that was copied or touched) by the hash; the copy then notes the new ones, so that later loads need no hash. Copies
    elsewhere carry size, time and converter in their names."""
    if not target.name.endswith(CACHE_SUFFIX):
        return False
    metadata, stamp = read_metadata(target), _stamp(source)
    if metadata.get("converter") != _CONVERTER:
        return True
    if metadata.get("source_stamp") == stamp:
        return False
    if metadata.get("source_sha256") != _sha256(source):
        return True
    with contextlib.suppress(OSError, ValueError):  # then the next load takes the hash again, and that is all
        change_metadata(target, {"source_stamp": stamp})
    return False


def _stamp(source: Path) -> str:
    stat = (source.with_suffix(".bin") if source.suffix == ".xml" else source).stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _is_ours(path: Path) -> bool:
    """Whether the header of a safetensors file says that this pack wrote it."""
    return read_metadata(path).get("format") == FORMAT


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    data = path.with_suffix(".bin") if path.suffix == ".xml" else path
    with data.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
