"""The pictures in the help pages are there, and small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "web" / "docs").glob("*.md"))]
MOST_BYTES = 300_000


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_pictures_of_a_page_are_there_and_small(page: Path) -> None:
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert 0 < (page.parent / name).stat().st_size < MOST_BYTES, name


def test_every_shipped_direction_has_its_picture() -> None:
    from dynode_pack.dynode_core.editing import shipped_directions

    text = (REPOSITORY / "web" / "docs" / "DynODE_EditFirstLatent.md").read_text(encoding="utf-8")
    for name in shipped_directions():
        assert f"(directions/{name.replace(' ', '_')}.jpg)" in text
