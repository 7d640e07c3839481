"""The English texts of the nodes, as `locales/en/nodeDefs.json` holds them.

    $PYTHON scripts/node_texts.py       # ask a real ComfyUI what the nodes say, and write the file

PYTHON is the one that `python3 scripts/comfy_env.py` prints.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import comfy_env
from comfy_client import ComfyClient
from comfy_server import ComfyServer

TEXTS = comfy_env.REPOSITORY / "locales" / "en" / "nodeDefs.json"
_DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


def node_texts(object_info: dict[str, Any]) -> dict[str, Any]:
    """Names, descriptions and tooltips of our nodes, from what the server says at `/object_info`."""
    return {
        name: {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": _input_texts(node["input"]),
            "outputs": {
                str(index): {"name": output, "tooltip": tooltip}
                for index, (output, tooltip) in enumerate(
                    zip(node["output_name"], node["output_tooltips"], strict=True)
                )
            },
        }
        for name, node in sorted(object_info.items())
        if name.startswith("DynODE_")
    }


def _input_texts(spec: dict[str, Any], prefix: str = "") -> dict[str, dict[str, str]]:
    """Name and tooltip of all inputs; those of a dynamic combo are named after it, as the page asks for them."""
    texts = {}
    for group in ("required", "optional"):
        for name, (kind, options) in spec.get(group, {}).items():
            texts[prefix + name] = {"name": name, "tooltip": options["tooltip"]}
            for option in options["options"] if kind == _DYNAMIC else ():
                texts |= _input_texts(option["inputs"], f"{prefix}{name}_")
    return texts


def main() -> None:
    """Write the file anew."""
    environment = comfy_env.prepare()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with ComfyServer(environment, base, base / "server.log") as server:
            info = ComfyClient(server.address, server.base).get_json("/object_info")
    text = json.dumps(node_texts(info), indent=2, ensure_ascii=False) + "\n"
    part = TEXTS.with_suffix(".part.json")
    part.write_text(text, encoding="utf-8")
    part.replace(TEXTS)
    print(f"wrote {TEXTS}")


if __name__ == "__main__":
    main()
