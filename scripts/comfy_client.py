"""Talk to a ComfyUI server: queue a workflow, follow it, collect what it made. Needs aiohttp, which ComfyUI brings."""

from __future__ import annotations

import asyncio
import json
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from workflow_format import Prompt, is_saved_workflow, to_prompt

PREVIEW, PREVIEW_WITH_METADATA = 1, 4
"""Kinds of binary messages that carry a picture."""
HISTORY_DEADLINE_S = 10.0


@dataclass
class NodeRun:
    """What happened in one node."""

    title: str
    class_type: str
    started_s: float | None = None
    """Seconds since the workflow was queued; None if the node has not run."""
    seconds: float = 0.0
    """Time in the node so far. The server may enter a node again when an input turns out to be needed first."""
    finished: bool = False
    cached: bool = False
    progress: list[tuple[float, float]] = field(default_factory=list)
    """Each (done, total) that the node reported."""
    previews: list[bytes] = field(default_factory=list)
    """Each preview picture, as JPEG or PNG bytes."""


@dataclass
class Run:
    """One workflow from the queue to its end."""

    prompt_id: str = ""
    status: str = "queued"
    """"queued" while it runs, then "success", "error", "interrupted", "invalid" or "timeout"."""
    seconds: float = 0.0
    nodes: dict[str, NodeRun] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Node id -> what the node showed or saved, as in the server's history."""
    error: dict[str, Any] = field(default_factory=dict)
    """For "error": node_id, node_type, exception_type, exception_message, traceback."""
    node_errors: dict[str, Any] = field(default_factory=dict)
    """What the server refuses, by node id. Outputs of the workflow that need none of these nodes still run."""

    @property
    def succeeded(self) -> bool:
        """Whether all of the workflow ran to its end."""
        return self.status == "success" and not self.node_errors

    def describe_failure(self) -> str:
        """One paragraph for people."""
        if self.node_errors or self.status == "invalid":
            lines = [str(self.error.get("message", "The server refused a part of the workflow."))]
            for node in self.node_errors.values():
                for error in node.get("errors", []):
                    lines.append(f"{node.get('class_type')}: {error.get('message')} {error.get('details')}".rstrip())
            return "\n".join(lines)
        if self.status == "error":
            return f"{self.error.get('node_type')}: {self.error.get('exception_message', '').strip()}"
        return f"The workflow ended with status {self.status!r}."


Listener = Callable[[str, "Run", str | None], None]
"""Called with (event, run, node id); event is "started", "progress", "preview", "cached", "finished" or "end"."""


class ComfyClient:
    """A client of the server at `address`, which runs on this machine with the base folder `base`."""

    def __init__(self, address: str, base: Path) -> None:
        self.address = address
        self.base = base

    # ---- plain requests ----

    def get(self, path: str) -> bytes:
        """Body of a GET request. Raises urllib.error.HTTPError for an error status."""
        with urllib.request.urlopen(self.address + urllib.parse.quote(path, safe="/?=&%"), timeout=60) as answer:
            return bytes(answer.read())

    def get_json(self, path: str) -> Any:
        """Parsed body of a GET request."""
        return json.loads(self.get(path))

    def post_json(self, path: str, data: Mapping[str, Any]) -> tuple[int, Any]:
        """(status, parsed body or None) of a POST request."""
        body, headers = json.dumps(data).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else None

    def interrupt(self, prompt_id: str) -> None:
        """Ask the server to stop a running workflow."""
        self.post_json("/interrupt", {"prompt_id": prompt_id})

    def free(self) -> None:
        """Ask the server to forget the outputs it keeps, so that the next run executes every node."""
        self.post_json("/free", {"unload_models": True, "free_memory": True})

    def load_prompt(self, file: Path) -> Prompt:
        """Read a workflow file of either format as a prompt."""
        data = json.loads(file.read_text(encoding="utf-8"))
        if is_saved_workflow(data):
            return to_prompt(data, self.get_json("/object_info"))
        prompt: Prompt = data.get("prompt", data)
        return prompt

    def saved_files(self, run: Run, node_id: str) -> list[Path]:
        """Files that a node of a finished run saved or showed, in its order."""
        files = []
        for items in run.outputs.get(node_id, {}).values():
            for item in items if isinstance(items, list) else []:
                if isinstance(item, Mapping) and "filename" in item:
                    files.append(self.base / item.get("type", "output") / item.get("subfolder", "") / item["filename"])
        return files

    # ---- running a workflow ----

    def run(self, prompt: Prompt, *, listener: Listener | None = None, timeout_s: float = 3600) -> Run:
        """Queue `prompt`, follow it to its end and return what happened. Errors of the workflow are in the result."""
        return asyncio.run(_Follower(self, prompt, listener).follow(timeout_s))


class _Follower:
    """Follows one workflow over the server's websocket."""

    def __init__(self, client: ComfyClient, prompt: Prompt, listener: Listener | None) -> None:
        self._client = client
        self._prompt = prompt
        self._listener = listener or (lambda event, run, node_id: None)
        self._run = Run()
        self._current: str | None = None
        self._entered = 0.0
        self._start = time.monotonic()

    async def follow(self, timeout_s: float) -> Run:
        run, client_id = self._run, uuid.uuid4().hex
        address = f"{self._client.address}/ws?clientId={client_id}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            self._start = time.monotonic()
            status, answer = await asyncio.to_thread(
                self._client.post_json, "/prompt", {"prompt": self._prompt, "client_id": client_id}
            )
            answer = answer or {}
            run.node_errors = answer.get("node_errors") or {}
            if status != 200:
                run.status, run.error = "invalid", answer.get("error") or {}
                return run
            run.prompt_id = answer["prompt_id"]
            try:
                await asyncio.wait_for(self._listen(socket), timeout_s)
            except (asyncio.TimeoutError, TimeoutError):
                run.status = "timeout"
                await asyncio.to_thread(self._client.interrupt, run.prompt_id)
        self._leave_current()
        run.seconds = time.monotonic() - self._start
        if run.status != "timeout":
            run.outputs = await asyncio.to_thread(self._history)
        self._listener("end", run, None)
        return run

    async def _listen(self, socket: Any) -> None:
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                self._on_picture(message.data)
            elif message.type == aiohttp.WSMsgType.TEXT:
                event = json.loads(message.data)
                data = event.get("data") or {}
                if data.get("prompt_id") in (None, self._run.prompt_id):
                    self._on_event(event["type"], data)
            if self._run.status != "queued":
                return
        self._run.status = "error"
        self._run.error = {"node_type": "server", "exception_message": "The server closed the connection."}

    def _on_event(self, kind: str, data: Mapping[str, Any]) -> None:
        run = self._run
        if kind == "execution_cached":
            for node_id in data["nodes"]:
                self._node(node_id).cached = True
                self._listener("cached", run, node_id)
        elif kind == "executing":
            self._leave_current()
            self._current, self._entered = data.get("node"), time.monotonic()
            if self._current is not None:
                node = self._node(self._current)
                if node.started_s is None:
                    node.started_s = self._entered - self._start
                self._listener("started", run, self._current)
        elif kind == "progress_state":
            self._on_states(data["nodes"])
        elif kind == "progress" and data.get("node") is not None:
            self._node(data["node"]).progress.append((data["value"], data["max"]))
            self._listener("progress", run, data["node"])
        elif kind == "execution_error":
            keys = ("node_id", "node_type", "exception_type", "exception_message", "traceback")
            run.status, run.error = "error", {key: data.get(key) for key in keys}
        elif kind == "execution_interrupted":
            run.status = "interrupted"
        elif kind == "execution_success":
            run.status = "success"

    def _on_picture(self, data: bytes) -> None:
        (kind,) = struct.unpack(">I", data[:4])
        node_id, picture = self._current, data[8:]
        if kind == PREVIEW_WITH_METADATA:
            (length,) = struct.unpack(">I", data[4:8])
            node_id, picture = json.loads(data[8 : 8 + length]).get("node_id", node_id), data[8 + length :]
        elif kind != PREVIEW:
            return
        if node_id is not None:
            self._node(node_id).previews.append(picture)
            self._listener("preview", self._run, node_id)

    def _on_states(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Note the nodes that are done: only this message says so."""
        for node_id, state in states.items():
            node = self._node(node_id)
            if state.get("state") == "finished" and not node.finished and not node.cached:
                if node_id == self._current:
                    self._leave_current()
                node.finished = True
                self._listener("finished", self._run, node_id)

    def _leave_current(self) -> None:
        if self._current is not None:
            self._node(self._current).seconds += time.monotonic() - self._entered
        self._current = None

    def _node(self, node_id: str) -> NodeRun:
        if node_id not in self._run.nodes:
            spec = self._prompt.get(node_id, {})
            kind = spec.get("class_type", "?")
            self._run.nodes[node_id] = NodeRun((spec.get("_meta") or {}).get("title") or kind, kind)
        return self._run.nodes[node_id]

    def _history(self) -> dict[str, dict[str, Any]]:
        """The outputs, once the server has written them down (shortly after it says that it is done)."""
        deadline = time.monotonic() + HISTORY_DEADLINE_S
        while time.monotonic() < deadline:
            entry = self._client.get_json(f"/history/{self._run.prompt_id}").get(self._run.prompt_id)
            if entry:
                return dict(entry.get("outputs") or {})
            time.sleep(0.05)
        return {}
