"""Print the progress of a workflow, one line per node; on a terminal the line of the running node moves."""

from __future__ import annotations

import sys
from typing import TextIO

from comfy_client import NodeRun, Run

STEPS_PER_NODE = 4
"""Lines per node at most where the output is a file and lines cannot be overwritten."""
TITLE_WIDTH = 48


class ProgressLines:
    """A `comfy_client.Listener`."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._moving = stream.isatty()
        self._printed: dict[str, int] = {}

    def __call__(self, event: str, run: Run, node_id: str | None) -> None:
        if node_id is None:
            return
        node = run.nodes[node_id]
        if event == "finished":
            self._line(f"{node.title:<{TITLE_WIDTH}} {node.seconds:8.1f} s", end="\n")
        elif event == "cached":
            self._line(f"{node.title:<{TITLE_WIDTH}}   cached", end="\n")
        elif event == "progress":
            self._on_progress(node_id, node)
        elif event == "started" and self._moving:
            self._line(f"{node.title} ...", end="")

    def _on_progress(self, node_id: str, node: NodeRun) -> None:
        done, total = node.progress[-1]
        text = f"{node.title:<{TITLE_WIDTH}} {done:g} / {total:g}"
        if self._moving:
            self._line(text, end="")
            return
        step = int(STEPS_PER_NODE * done / total) if total else 0
        if 0 < step < STEPS_PER_NODE and step > self._printed.get(node_id, 0):
            self._printed[node_id] = step
            self._line(text, end="\n")

    def _line(self, text: str, *, end: str) -> None:
        start = "\r\x1b[K" if self._moving else ""
        print(f"{start}  {text}", end=end, file=self._stream, flush=True)
