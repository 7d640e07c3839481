"""From a file, or from nothing, to a generator."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..generators.mobile_stylegan import MobileStyleGAN
from ..generators.protocol import Generator
from ..model_files import GENERATOR, find_model
from .mobile_stylegan_ir import read_random_face

FORMAT = "dynode-generator-1"
MOBILE_FAMILY = "mobile_stylegan-ffhq-1024"


def load_generator(
    path: Path | str | None = None,
    *,
    folders: Iterable[Path] = (),
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
) -> Generator:
    """Load a generator; without a `path` the default one (MobileStyleGAN FFHQ 1024).

    Args:
        path: generator file.
        folders: model folders to search for the default generator.
        cache_dir: where a converted copy is kept; default: beside the file if that folder can be written, else
            the user's cache folder.
        device: where the weights go.
    Raises:
        FileNotFoundError: nothing there; the message says how to get it.
        ValueError: the file is damaged or of an unknown kind.
    """
    source = Path(path) if path is not None else find_model(GENERATOR, folders)
    if not source.is_file():
        raise FileNotFoundError(f"No generator file at {source}.")
    if source.suffix == ".safetensors":
        return read_generator(source).to(device)  # type: ignore[attr-defined]
    if source.suffix == ".xml":
        converted = _cached_conversion(source, cache_dir)
        return read_generator(converted).to(device)  # type: ignore[attr-defined]
    raise ValueError(f"{source} is of no known generator format: expected .safetensors or an OpenVINO .xml/.bin pair.")


def read_generator(path: Path) -> Generator:
    """Read one of our safetensors files.

    Raises:
        ValueError: it was not written by this pack, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:
        raise ValueError(f"{path} can't be read as safetensors ({error}): it is damaged or only partly downloaded.") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file, but not a generator written by this pack (its metadata names the format "
            f"{metadata.get('format')!r}, expected {FORMAT!r}). Convert the original checkpoint with 'convert'."
        )
    return MobileStyleGAN(state, family=metadata["family"], generator_id=metadata["generator_id"])


def write_generator(state: dict[str, Tensor], path: Path, *, family: str, architecture: str, source: Path) -> None:
    """Write canonical tensors with their metadata; the file appears whole or not at all."""
    metadata = {
        "format": FORMAT,
        "architecture": architecture,
        "family": family,
        "generator_id": state_id(state),
        "source": source.name,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".part.{os.getpid()}.safetensors")
    try:
        save_file(state, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def state_id(state: dict[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 of all tensors in name order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def user_cache_dir() -> Path:
    """`$DYNODE_CACHE`, or the platform's cache folder for this pack."""
    if "DYNODE_CACHE" in os.environ:
        return Path(os.environ["DYNODE_CACHE"])
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dynode"


def _cached_conversion(xml_path: Path, cache_dir: Path | None) -> Path:
    stat = xml_path.with_suffix(".bin").stat() if xml_path.with_suffix(".bin").is_file() else xml_path.stat()
    stamp = hashlib.sha256(f"{xml_path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache_dir if cache_dir is not None else user_cache_dir() / "generators"
    target = folder / f"mobile_stylegan_ffhq_1024-{stamp}.safetensors"
    if not target.is_file():
        state = read_random_face(xml_path.parent)
        write_generator(state, target, family=MOBILE_FAMILY, architecture="mobile_stylegan", source=xml_path)
    return target
