"""A link to a heading leads to one; that files exist is for scripts/check_docs.py to say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(path: Path) -> set[str]:
    """Those of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> list[tuple[Path, str]]:
    """Documents and headings that a document points at."""
    found = re.findall(r"\]\(((?!\w+:)[^)\s#]*)#([\w-]+)\)", path.read_text(encoding="utf-8"))
    return [((path.parent / file).resolve() if file else path, anchor) for file, anchor in found]


def test_there_are_such_links():
    assert sum(len(links(path)) for path in DOCUMENTS) > 10


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_to_a_heading_leads_to_one(path: Path):
    assert [(str(file), anchor) for file, anchor in links(path) if anchor not in anchors(file)] == []
