"""Start and stop a real ComfyUI server that has this pack, and nothing else, as a custom node."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from comfy_env import REPOSITORY, Environment

PACK_FOLDER = "ComfyUI-DynODE"
"""Name under which the server sees the pack, whatever the folder of this repository is called."""
BASE_FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
START_DEADLINE_S = 600.0
STOP_DEADLINE_S = 15.0
PR_SET_PDEATHSIG = 1
"""From Linux's <sys/prctl.h>."""


class ServerFailure(RuntimeError):
    """The server did not start; the message ends with the last lines of its log."""


class ComfyServer:
    """A server process for use in a `with` block.

    Args:
        environment: what `comfy_env.prepare` returned.
        base: folder for custom_nodes, models, input, output, temp and user; created as needed.
        log: file that receives what the server prints.
        port: 0 takes a free one.
        options: further options for ComfyUI's main.py.
    """

    def __init__(
        self, environment: Environment, base: Path, log: Path, *, port: int = 0, options: Sequence[str] = ()
    ) -> None:
        self.base = base.resolve()
        self.log = log
        self.port = port or _free_port()
        self._environment = environment
        self._options = list(options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Address to open in a browser."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServerFailure: it ended, or did not answer in time.
        """
        prepare_base(self.base)
        environment = self._environment
        command = [str(environment.python), "main.py", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--database-url", "sqlite:///:memory:", *self._options]
        if not _has_accelerator(environment.python):
            command.append("--cpu")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches us first, and we stop the server.
            self._process = subprocess.Popen(
                command,
                cwd=environment.comfyui,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform.startswith("linux") else None,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"},
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerFailure(f"ComfyUI ended with status {self._process.returncode}:\n{self.log_tail()}")
            try:
                with urllib.request.urlopen(f"{self.address}/system_stats", timeout=5) as answer:
                    json.load(answer)
                return
            except (urllib.error.URLError, OSError, ValueError):
                time.sleep(0.2)
        raise ServerFailure(f"ComfyUI did not answer within {START_DEADLINE_S:.0f} s:\n{self.log_tail()}")

    def stop(self) -> None:
        """Stop the server and what it started. Calling it twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(timeout=STOP_DEADLINE_S)
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def wait(self) -> None:
        """Wait until the server ends by itself."""
        if self._process is not None:
            self._process.wait()

    def peak_memory_bytes(self) -> int | None:
        """Highest resident memory of the server process so far (Linux), else None."""
        try:
            status = Path(f"/proc/{self._process.pid if self._process else 0}/status").read_text()
        except OSError:
            return None
        line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
        return int(line.split()[1]) * 1024 if line else None

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def prepare_base(base: Path) -> None:
    """Create the folders of a server and link the pack into custom_nodes."""
    for name in BASE_FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / PACK_FOLDER
    if not link.is_symlink() or link.resolve() != REPOSITORY:
        link.unlink(missing_ok=True)
        link.symlink_to(REPOSITORY, target_is_directory=True)


def _end_with_parent() -> None:
    """In the new process: ask the kernel for SIGTERM when the process that started it is gone, killed or not."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has_accelerator(python: Path) -> bool:
    code = "import torch; raise SystemExit(0 if torch.cuda.is_available() or torch.backends.mps.is_available() else 1)"
    return subprocess.run([str(python), "-c", code], cwd=REPOSITORY, capture_output=True).returncode == 0
