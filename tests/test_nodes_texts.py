"""The English texts of the nodes say the same in the schema and in `locales`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from node_texts import TEXTS, node_texts

pytestmark = [pytest.mark.comfy, pytest.mark.weights]


def test_locale_holds_the_texts_of_every_node(client: Any) -> None:
    """Else run scripts/node_texts.py."""
    expected = node_texts(client.get_json("/object_info"))
    assert json.loads(TEXTS.read_text(encoding="utf-8")) == expected
