"""Cancel in a real server: it is heard at the next step, and nothing half-finished stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from server_fixtures import quick

pytestmark = [pytest.mark.comfy, pytest.mark.weights]
WORKFLOW = Path(__file__).resolve().parent.parent.parent / "workflows" / "edit_face_video.json"
STEPS_IN_FLIGHT = 2
"""Reports that may arrive between the request and its effect."""
FRESH_INPUTS: dict[str, dict[str, dict[str, Any]]] = {
    "DynODE_FrameAlign": {"DynODE_FrameAlign": {"smoothing": 1.1}},
    "DynODE_Invert": {"DynODE_Invert": {"seed": 4711}},
    "DynODE_BlendBack": {
        "DynODE_FrameAlign": {"smoothing": 1.2, "picture_frames": "all frames"},
        "DynODE_BlendBack": {"mode": "replace"},
    },
}
"""Node to cancel -> inputs by node type that make it work anew."""
WITHOUT_GENERATOR = ("LoadVideo", "DynODE_FrameAlign", "DynODE_BlendBack", "SaveVideo")


class CancelAt:
    """A listener that interrupts the run at the first progress of a node type."""

    def __init__(self, client: Any, class_type: str) -> None:
        self._client = client
        self._class_type = class_type
        self.reports_at_request: int | None = None

    def __call__(self, event: str, run: Any, node_id: str | None) -> None:
        if event != "progress" or self.reports_at_request is not None or node_id is None:
            return
        node = run.nodes[node_id]
        if node.class_type == self._class_type:
            self._client.interrupt(run.prompt_id)
            self.reports_at_request = len(node.progress)


def long_prompt(client: Any, class_type: str) -> dict[str, Any]:
    """A workflow with work to do in `class_type` that no run before has left in a cache, and little before it."""
    prompt = quick(client.load_prompt(WORKFLOW))
    for node in prompt.values():
        node["inputs"] |= FRESH_INPUTS[class_type].get(node["class_type"], {})
    if class_type == "DynODE_BlendBack":  # the crops go back as they are
        prompt = {key: node for key, node in prompt.items() if node["class_type"] in WITHOUT_GENERATOR}
        ids = {node["class_type"]: key for key, node in prompt.items()}
        prompt[ids["DynODE_BlendBack"]]["inputs"]["faces"] = [ids["DynODE_FrameAlign"], 1]
    return prompt


def half_finished(base: Path) -> list[Path]:
    return [path for path in base.rglob("*.part*") if path.is_file()]


def videos(base: Path) -> set[Path]:
    return {path for folder in ("temp", "output") for path in (base / folder).rglob("*.mp4")}


@pytest.mark.parametrize("class_type", FRESH_INPUTS)
def test_cancel_stops_the_node_and_leaves_no_file(client: Any, class_type: str) -> None:
    before = videos(client.base)
    cancel = CancelAt(client, class_type)
    run = client.run(long_prompt(client, class_type), listener=cancel, timeout_s=1500)
    assert run.status == "interrupted"
    (node,) = [node for node in run.nodes.values() if node.class_type == class_type]
    assert cancel.reports_at_request is not None
    assert len(node.progress) <= cancel.reports_at_request + STEPS_IN_FLIGHT
    assert node.progress[-1][0] < node.progress[-1][1], "it went on to the end"
    assert half_finished(client.base) == []
    assert videos(client.base) == before


def test_the_server_works_on_after_a_cancel(client: Any) -> None:
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert client.run(prompt, timeout_s=60).status == "success"
