"""Convert a saved workflow (the page's format: nodes with positions and links) into what the server's queue takes.

The page does this when a user presses Run. Here it is done without a browser, from the server's own `/object_info`, so
that demo.sh and the server tests run exactly the files that users load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Prompt = dict[str, dict[str, Any]]
"""Node id -> {"class_type", "inputs", "_meta"}; an input is a value or [node id, index of an output]."""

WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
NOTES = frozenset({"Note", "MarkdownNote"})
SEED_NAMES = frozenset({"seed", "noise_seed"})
CONTROL_VALUES = frozenset({"fixed", "increment", "decrement", "randomize"})
UPLOAD_FLAGS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")
UPLOAD_VALUES = frozenset({"image", "video", "audio", "upload", "", None})
MUTED, BYPASSED = 2, 4


def is_saved_workflow(data: Mapping[str, Any]) -> bool:
    """Whether `data` is the page's format (and not the queue's)."""
    return isinstance(data.get("nodes"), list)


def to_prompt(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> Prompt:
    """Convert a saved workflow.

    Args:
        workflow: the parsed JSON file.
        object_info: what the server's `/object_info` says about its nodes.

    Raises:
        ValueError: a node type is unknown to the server, or the file uses subgraphs (which only the page can unpack).
    """
    if (workflow.get("definitions") or {}).get("subgraphs"):
        raise ValueError("The workflow holds subgraphs. Unpack them in the page and save it again.")
    graph = _Graph(workflow)
    prompt: Prompt = {}
    for node in graph.nodes.values():
        kind = node["type"]
        if kind in NOTES or kind in {"Reroute", "PrimitiveNode"} or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        if kind not in object_info:
            raise ValueError(f"Node {node['id']} has the type {kind!r}, which the server does not know.")
        info = object_info[kind]
        inputs = _widget_inputs(node, info)
        for slot in node.get("inputs") or []:
            if slot.get("link") is not None:
                source = graph.source(slot["link"])
                if source is not None:
                    inputs[slot["name"]] = source
        title = node.get("title") or info.get("display_name") or kind
        prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
    return prompt


class _Graph:
    """The nodes and links of a saved workflow."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        self.nodes: dict[str, Mapping[str, Any]] = {str(node["id"]): node for node in workflow["nodes"]}
        self._origins: dict[int, tuple[str, int]] = {}
        for link in workflow.get("links") or []:
            if isinstance(link, Mapping):
                self._origins[link["id"]] = (str(link["origin_id"]), link["origin_slot"])
            else:
                self._origins[link[0]] = (str(link[1]), link[2])

    def source(self, link: int) -> Any:
        """What a link delivers: [node id, output index], the value of a primitive node, or None if it has no origin."""
        if link not in self._origins:
            return None
        node_id, slot = self._origins[link]
        node = self.nodes[node_id]
        if node["type"] == "PrimitiveNode":
            return (node.get("widgets_values") or [None])[0]
        if node["type"] == "Reroute":
            return self._through(node, 0)
        if node.get("mode", 0) == BYPASSED:
            return self._through_bypassed(node, slot)
        if node.get("mode", 0) == MUTED:
            return None
        return [node_id, slot]

    def _through(self, node: Mapping[str, Any], index: int) -> Any:
        link = node["inputs"][index].get("link")
        return None if link is None else self.source(link)

    def _through_bypassed(self, node: Mapping[str, Any], slot: int) -> Any:
        """A bypassed node hands on its first connected input of the type of the output."""
        kind = node["outputs"][slot]["type"]
        for index, candidate in enumerate(node.get("inputs") or []):
            if candidate["type"] == kind and candidate.get("link") is not None:
                return self._through(node, index)
        return None


def _widget_inputs(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the widgets of a node, by input name.

    A file stores them as one list in the order in which the page shows the widgets; the page adds one after a seed
    ("what to do after each run") and may add one after an upload field. Widgets that are younger than the file have
    their defaults.
    """
    values = node.get("widgets_values") or []
    if isinstance(values, Mapping):
        return dict(values)
    remaining = list(values)
    result: dict[str, Any] = {}
    specs = list(_specs(info["input"], info.get("input_order")))
    while specs:
        name, kind, options = specs.pop(0)
        if not _is_widget(kind, options):
            continue
        result[name] = remaining.pop(0) if remaining else _default(kind, options)
        if remaining and remaining[0] in CONTROL_VALUES and _has_control(name, kind, options):
            remaining.pop(0)
        if any(options.get(flag) for flag in UPLOAD_FLAGS) and remaining and remaining[0] in UPLOAD_VALUES:
            widgets_left = sum(_is_widget(other_kind, other) for _, other_kind, other in specs)
            if len(remaining) > widgets_left:
                remaining.pop(0)
        if kind == DYNAMIC_COMBO:
            specs[:0] = _chosen(name, result[name], options)
    return result


def _specs(inputs: Mapping[str, Any], order: Mapping[str, Any] | None) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, type, options) of all inputs in the order of the page."""
    for group in ("required", "optional"):
        members = inputs.get(group) or {}
        names = (order or {}).get(group) or list(members)
        for name in names:
            spec = members[name]
            yield name, spec[0], dict(spec[1]) if len(spec) > 1 else {}


def _chosen(name: str, key: Any, options: Mapping[str, Any]) -> list[tuple[str, Any, dict[str, Any]]]:
    """The inputs that the chosen option of a dynamic combo adds."""
    for option in options.get("options", []):
        if option["key"] == key:
            return [(f"{name}.{sub}", kind, settings) for sub, kind, settings in _specs(option["inputs"], None)]
    return []


def _is_widget(kind: Any, options: Mapping[str, Any]) -> bool:
    if options.get("forceInput") or options.get("rawLink"):
        return False
    return isinstance(kind, list) or kind in WIDGET_TYPES or kind == DYNAMIC_COMBO


def _default(kind: Any, options: Mapping[str, Any]) -> Any:
    """What the page shows in a widget that the file has no value for."""
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options") or [None]
    first = choices[0]["key"] if isinstance(choices[0], Mapping) else choices[0]
    return {"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False}.get(kind if isinstance(kind, str) else "", first)


def _has_control(name: str, kind: Any, options: Mapping[str, Any]) -> bool:
    return bool(options.get("control_after_generate")) or (kind == "INT" and name in SEED_NAMES)
