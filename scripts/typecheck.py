"""Run mypy over the pack under the name that the tests give it.

The repository root is a package whose folder may have any name (`ComfyUI-DynODE` is not even an identifier), so mypy
sees it through a link called `dynode_pack`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import comfy_env

PACKAGES = ("dynode_pack.dynode_core", "dynode_pack.nodes")


def main() -> int:
    """Exit status of mypy."""
    folder = comfy_env.cache_folder() / "typecheck"
    folder.mkdir(exist_ok=True)
    link = folder / "dynode_pack"
    if not link.is_symlink() or link.resolve() != comfy_env.REPOSITORY:
        link.unlink(missing_ok=True)
        link.symlink_to(comfy_env.REPOSITORY, target_is_directory=True)
    command = [sys.executable, "-m", "mypy", "--config-file", str(comfy_env.REPOSITORY / "pyproject.toml")]
    command += ["--cache-dir", str(folder / "mypy_cache")]
    for package in PACKAGES:
        command += ["-p", package]
    return subprocess.run(command, cwd=folder, env={**os.environ, "MYPYPATH": str(folder)}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
