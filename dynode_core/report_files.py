"""Reports as JSON files, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .artifacts import plain_facts


def write_report(path: Path, value: Any) -> None:
    """Write `value`, arrays and all, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part.json", delete=False, encoding="utf-8") as part:
        json.dump(plain_facts(value), part, indent=2)
    os.replace(part.name, path)
