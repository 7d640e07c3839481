"""The English texts of the nodes say the same in the schema and in `locales`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.weights]
TEXTS = Path(__file__).resolve().parent.parent / "locales" / "en" / "nodeDefs.json"
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


def input_texts(spec: dict[str, Any], prefix: str = "") -> dict[str, dict[str, str]]:
    """Name and tooltip of all inputs; those of a dynamic combo are named after it, as the page asks for them."""
    texts = {}
    for group in ("required", "optional"):
        for name, (kind, options) in spec.get(group, {}).items():
            texts[prefix + name] = {"name": name, "tooltip": options["tooltip"]}
            for option in options["options"] if kind == DYNAMIC else ():
                texts |= input_texts(option["inputs"], f"{prefix}{name}_")
    return texts


def test_locale_holds_the_texts_of_every_node(client: Any) -> None:
    info = client.get_json("/object_info")
    expected = {
        name: {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": input_texts(node["input"]),
            "outputs": {
                str(index): {"name": output, "tooltip": tooltip}
                for index, (output, tooltip) in enumerate(
                    zip(node["output_name"], node["output_tooltips"], strict=True)
                )
            },
        }
        for name, node in info.items()
        if name.startswith("DynODE_")
    }
    assert json.loads(TEXTS.read_text(encoding="utf-8")) == expected
