"""JSON that Python reads and nothing else can use, and shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.json_text import fits, is_count, is_number, is_score, is_text, maybe, parsed, read_json


@pytest.mark.parametrize("text", ["[" * 100_000, '"\\ud800"', '{"a": ["\\uDFFF x"]}', "", "{"])
def test_what_cannot_be_used_is_no_json(tmp_path: Path, text: str):
    with pytest.raises(ValueError):
        parsed(text)
    (tmp_path / "file").write_text(text)
    with pytest.raises(UserError, match="file is not a table .*; write one"):
        read_json(tmp_path / "file", "a table", "write one")


def test_a_pair_of_surrogates_is_a_character():
    assert parsed(json.dumps("\U0001f600")) == "\U0001f600"


SHAPE = {"name": is_text, "calls": maybe(is_number), "steps": [{"n": is_count}]}


@pytest.mark.parametrize(
    "value, right",
    [
        ({"name": "x", "steps": []}, True),
        ({"name": "x", "calls": 2.5, "steps": [{"n": 3, "other": None}]}, True),
        ({"steps": []}, False),
        ({"name": "x", "calls": True, "steps": []}, False),
        ({"name": "x", "calls": float("nan"), "steps": []}, False),
        ({"name": "x", "calls": 10**400, "steps": []}, False),
        ({"name": "x", "steps": [{"n": -1}]}, False),
        ({"name": "x", "steps": {}}, False),
        ([], False),
    ],
)
def test_shapes(value: Any, right: bool):
    assert fits(value, SHAPE) is right


def test_a_score_may_be_infinite():
    assert is_score(float("-inf")) and is_score(-1.5) and not is_score("1")
