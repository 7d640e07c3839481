"""System libraries and programs that no Python package brings: installed with apt-get if possible, else named."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

LIBRARIES = {"libGL.so.1": "libgl1", "libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2"}
"""Shared library -> Debian package. OpenCV opens the first, mediapipe the other two."""
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class MissingSystemPackage(RuntimeError):
    """A system package is missing and cannot be installed from here; the message has the command."""


def ensure_libraries(say: Callable[[str], None]) -> None:
    """Make sure that OpenCV and mediapipe find their shared libraries (Linux only: other wheels bring theirs)."""
    if not sys.platform.startswith("linux"):
        return
    missing = [package for library, package in LIBRARIES.items() if not _loads(library)]
    if missing:
        _install(missing, say)


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome, or None. CHROMIUM_PATH names another."""
    named = os.environ.get("CHROMIUM_PATH")
    candidates = (named,) if named else CHROMIUM_NAMES
    return next((path for name in candidates if (path := shutil.which(name))), None)


def ensure_chromium(say: Callable[[str], None]) -> None:
    """Make sure that the browser tests have a browser."""
    if find_chromium() is None:
        _install(["chromium"], say)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _install(packages: Sequence[str], say: Callable[[str], None]) -> None:
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if not shutil.which("apt-get"):
        raise MissingSystemPackage(
            f"Missing on this system: {', '.join(packages)} (Debian's names). Install them with your package manager."
        )
    if os.geteuid() != 0:
        raise MissingSystemPackage(f"Missing on this system: {', '.join(packages)}. Run: sudo {' '.join(install)}")
    say(f"installing system packages: {' '.join(packages)}")
    settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(install, env=settings, capture_output=True).returncode == 0:
        return
    subprocess.run(["apt-get", "update", "-q"], env=settings, stdout=sys.stderr)
    if subprocess.run(install, env=settings, stdout=sys.stderr).returncode != 0:
        raise MissingSystemPackage(f"This command failed, see the lines above: {' '.join(install)}")
