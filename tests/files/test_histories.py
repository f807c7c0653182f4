"""Reading of generate-SUBSET.history.jsonl, and choosing from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.histories import chosen, read


def write(path: Path, *ids: int) -> Path:
    path.write_text("".join(json.dumps({"id": i, "source": "s", "candidates": []}) + "\n" for i in ids))
    return path


def test_sentences_come_in_the_order_of_the_data(tmp_path: Path):
    assert [sentence["id"] for sentence in read(write(tmp_path / "h.jsonl", 13, 2, 100))] == [2, 13, 100]


@pytest.mark.parametrize("text", ["", "S-1\tx\n", '{"id": 1, "candidates": []}\n{"id": 2}\n'])
def test_other_files_are_refused(tmp_path: Path, text: str):
    (tmp_path / "h").write_text(text)
    with pytest.raises(UserError, match="is no history: .* --retain-iter-history --results-path"):
        read(tmp_path / "h")


SENTENCE = {"id": 1, "source": "s", "candidates": []}
CANDIDATE = {"text": "t", "score": -1.0, "calls": 1, "steps": [{"tokens": ["a"], "p": [0.5]}]}
OTHERS = [
    {"steps": [{"tokens": ["a"], "p": []}]},
    {"steps": [{"tokens": ["a"], "p": [2]}]},
    {"score": "x"},
    {"text": 1},
]


@pytest.mark.parametrize("other", OTHERS)
def test_values_of_other_types_are_no_history(tmp_path: Path, other: dict):
    path = tmp_path / "h.jsonl"
    for candidate, raised in (CANDIDATE, False), ({**CANDIDATE, **other}, True):
        path.write_text(json.dumps({**SENTENCE, "candidates": [candidate]}))
        if raised:
            with pytest.raises(UserError, match="is no history: 1 of its 1 lines"):
                read(path)
        else:
            assert len(read(path)) == 1


def test_a_sentence_that_is_there_twice(tmp_path: Path):
    with pytest.raises(UserError, match="h.jsonl holds sentence 2 twice"):
        read(write(tmp_path / "h.jsonl", 1, 2, 3, 2))


def test_bytes_are_no_history(tmp_path: Path):
    (tmp_path / "history").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8"):
        read(tmp_path / "history")


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path / "absent")


def test_choice(tmp_path: Path):
    every = read(write(tmp_path / "h.jsonl", *range(5)))
    assert [sentence["id"] for sentence in chosen(every, [], 3)] == [0, 1, 2]
    assert [sentence["id"] for sentence in chosen(every, ["4", "1"], 1)] == [4, 1]
    with pytest.raises(UserError, match="no sentence '7'; it has 5, among them 0, 1, 2, 3, 4"):
        chosen(every, ["1", "7"], 3)
