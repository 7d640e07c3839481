"""scripts/workflow_format.py: the file that a user saves becomes the prompt that the page would queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workflow_format import is_saved_workflow, to_prompt

DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
INFO: dict[str, Any] = {
    "Load": {
        "display_name": "Load a File",
        "input": {"required": {"file": ["COMBO", {"options": ["a.mp4"], "video_upload": True}]}},
        "input_order": {"required": ["file"]},
    },
    "Work": {
        "display_name": "Work",
        "input": {
            "required": {
                "clip": ["CLIP_SOCKET", {}],
                "seed": ["INT", {"control_after_generate": True}],
                "quality": [["draft", "fine"]],
                "mode": [
                    DYNAMIC,
                    {
                        "options": [
                            {"key": "same", "inputs": {"required": {}}},
                            {"key": "list", "inputs": {"required": {"times": ["STRING", {}]}}},
                        ]
                    },
                ],
            },
            "optional": {"strength": ["FLOAT", {"default": 1.0}], "other": ["CLIP_SOCKET", {}]},
        },
        "input_order": {"required": ["clip", "seed", "quality", "mode"], "optional": ["strength", "other"]},
    },
}


def node(number: int, kind: str, values: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": number, "type": kind, "mode": 0, "widgets_values": values or [], **more}


def slot(name: str, link: int | None, kind: str = "CLIP_SOCKET") -> dict[str, Any]:
    return {"name": name, "type": kind, "link": link}


def converted(*nodes: dict[str, Any], links: list[list[Any]] | None = None) -> dict[str, Any]:
    return to_prompt({"nodes": list(nodes), "links": links or []}, INFO)


def test_widgets_follow_the_order_of_the_page_and_the_control_after_a_seed_is_no_input() -> None:
    prompt = converted(node(2, "Work", [7, "randomize", "fine", "same", 0.5]))
    assert prompt["2"]["inputs"] == {"seed": 7, "quality": "fine", "mode": "same", "strength": 0.5}


def test_chosen_option_of_a_dynamic_combo_brings_its_own_widgets() -> None:
    prompt = converted(node(2, "Work", [7, "fixed", "draft", "list", "0, 1", 0.5]))
    assert prompt["2"]["inputs"]["mode.times"] == "0, 1"
    assert prompt["2"]["inputs"]["strength"] == 0.5


@pytest.mark.parametrize("values", [["a.mp4"], ["a.mp4", "image"]])
def test_upload_button_is_no_input(values: list[str]) -> None:
    assert converted(node(1, "Load", values))["1"]["inputs"] == {"file": "a.mp4"}


def test_widgets_that_are_younger_than_the_file_have_their_defaults() -> None:
    assert converted(node(2, "Work", [7]))["2"]["inputs"] == {
        "seed": 7,
        "quality": "draft",
        "mode": "same",
        "strength": 1.0,
    }


def test_links_become_node_and_output() -> None:
    work = node(2, "Work", [7, "fixed", "fine", "same", 0.5], inputs=[slot("clip", 9), slot("other", None)])
    prompt = converted(node(1, "Load", ["a.mp4"]), work, links=[[9, 1, 0, 2, 0, "CLIP_SOCKET"]])
    assert prompt["2"]["inputs"]["clip"] == ["1", 0]
    assert "other" not in prompt["2"]["inputs"]


def test_a_link_into_a_widget_wins_over_its_stored_value() -> None:
    primitive = node(1, "PrimitiveNode", [42])
    work = node(2, "Work", [7, "fixed", "fine", "same", 0.5], inputs=[slot("seed", 9, "INT")])
    prompt = converted(primitive, work, links=[[9, 1, 0, 2, 1, "INT"]])
    assert prompt["2"]["inputs"]["seed"] == 42
    assert "1" not in prompt


def test_reroutes_and_bypassed_nodes_are_passed_through() -> None:
    reroute = node(3, "Reroute", inputs=[slot("", 8, "*")])
    bypassed = node(4, "Work", inputs=[slot("clip", 9)], outputs=[{"type": "CLIP_SOCKET"}])
    bypassed["mode"] = 4
    work = node(2, "Work", [7, "fixed", "fine", "same", 0.5], inputs=[slot("clip", 10)])
    links = [[8, 1, 0, 3, 0, "*"], [9, 3, 0, 4, 0, "*"], [10, 4, 0, 2, 0, "*"]]
    prompt = converted(node(1, "Load", ["a.mp4"]), reroute, bypassed, work, links=links)
    assert prompt["2"]["inputs"]["clip"] == ["1", 0]
    assert set(prompt) == {"1", "2"}


def test_notes_and_muted_nodes_are_left_out() -> None:
    muted = node(4, "Load", ["a.mp4"])
    muted["mode"] = 2
    assert converted(node(1, "Note", ["text"]), node(3, "MarkdownNote", ["text"]), muted) == {}


def test_titles_come_from_the_user_else_from_the_server() -> None:
    prompt = converted(node(1, "Load", ["a.mp4"]), node(2, "Load", ["a.mp4"], title="My clip"))
    assert [prompt[key]["_meta"]["title"] for key in ("1", "2")] == ["Load a File", "My clip"]


def test_an_unknown_node_is_named() -> None:
    with pytest.raises(ValueError, match="'Gone'"):
        converted(node(1, "Gone"))


def test_the_two_formats_are_told_apart() -> None:
    assert is_saved_workflow({"nodes": [], "links": []})
    assert not is_saved_workflow({"1": {"class_type": "Load", "inputs": {}}})


WORKFLOWS = sorted((Path(__file__).resolve().parent.parent / "workflows").glob("*.json"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_shipped_workflows_show_what_frame_align_found(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert workflow["last_node_id"] == max(nodes) and sorted(n["order"] for n in nodes.values()) == [*range(len(nodes))]
    links = {link[0]: link for link in workflow["links"]}
    assert max(links) == workflow["last_link_id"]
    for aligner in (node for node in nodes.values() if node["type"] == "DynODE_FrameAlign"):
        (report,) = (output for output in aligner["outputs"] if output["name"] == "report")
        targets = [nodes[links[number][3]] for number in report["links"]]
        assert [node["type"] for node in targets] == ["PreviewAny"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_links_of_shipped_workflows_are_known_at_both_ends(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, output, target, slot_of_target, kind in workflow["links"]:
        given, taken = nodes[source]["outputs"][output], nodes[target]["inputs"][slot_of_target]
        assert number in given["links"] and taken["link"] == number
        assert given["type"] == kind and (taken["type"] == "*" or kind in taken["type"].split(","))
    ends = [entry["link"] for node in nodes.values() for entry in node["inputs"] if entry["link"] is not None]
    assert sorted(ends) == sorted(link[0] for link in workflow["links"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_nodes_of_shipped_workflows_do_not_lie_on_each_other(path: Path) -> None:
    boxes = [(*n["pos"], *n["size"]) for n in json.loads(path.read_text(encoding="utf-8"))["nodes"]]
    for i, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:i]:
            apart = x >= other_x + other_width or other_x >= x + width
            assert apart or y >= other_y + other_height or other_y >= y + height
