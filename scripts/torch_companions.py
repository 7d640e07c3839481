"""Make torchvision and torchaudio importable where only their CUDA builds can be had but torch is a CPU build.

Run with the Python of the project's own virtual environment, never with a user's. ComfyUI imports both packages; it
uses their Python parts, which work without the compiled ones once two gaps are closed:

- torchvision registers fake kernels for operators that its compiled library would have declared. A small module beside
  it declares them.
- torchaudio loads its compiled library if the file exists, and works without if it does not. The file is removed.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

DECLARATIONS = '''"""Declares the operators for which torchvision registers fake kernels. Written by ComfyUI-DynODE."""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for _operator in ("nms", "qnms"):
    LIBRARY.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
'''
HOOK = "\nif not _has_ops():\n    import torchvision_operator_declarations  # noqa: F401\n"


def imports(name: str) -> bool:
    """Whether a new process of this Python can import the package `name`."""
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode == 0


def folder_of(name: str) -> Path:
    """The folder of the installed package `name`."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"The package {name} is not installed in {sys.prefix}.")
    return Path(found.origin).parent


def repair_torchvision() -> None:
    """Declare the operators before torchvision registers anything for them."""
    folder = folder_of("torchvision")
    (folder.parent / "torchvision_operator_declarations.py").write_text(DECLARATIONS)
    extension = folder / "extension.py"
    text = extension.read_text()
    if HOOK not in text:
        extension.write_text(text + HOOK)


def repair_torchaudio() -> None:
    """Remove the compiled libraries that cannot be loaded."""
    for library in (folder_of("torchaudio") / "lib").glob("*.so"):
        library.unlink()


def main() -> int:
    """Repair what cannot be imported and check that it can be now."""
    for name, repair in (("torchvision", repair_torchvision), ("torchaudio", repair_torchaudio)):
        if not imports(name):
            repair()
            if not imports(name):
                print(f"{name} fails without its compiled part too: try {sys.executable} -c 'import {name}'")
                return 1
            print(f"{name}: running without its compiled part")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
