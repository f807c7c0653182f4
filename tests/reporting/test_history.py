"""The file of --retain-iter-history: what fairseq-generate prints of a sentence, and how it came about."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conftest import SIZES
from fairseq.data import encoders
from support import generate, lines

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files import histories

NAME = "generate-test.history.jsonl"
FLAGS = "--retain-iter-history --iter-decode-with-beam 2 --noise-beam 2 --selection mbr --nbest 3"
SILENT = {"<s>", "<pad>", "</s>"}


@pytest.fixture(scope="module")
def folder(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    generate(data, checkpoint, f"{FLAGS} --results-path {folder}")
    return folder


def test_it_says_what_fairseq_prints(folder: Path):
    text, sentences = (folder / "generate-test.txt").read_text(), histories.read(folder / NAME)
    assert [sentence["id"] for sentence in sentences] == list(range(SIZES["test"]))
    for sentence in sentences:
        name, candidates = str(sentence["id"]), sentence["candidates"]
        assert sentence["source"] == lines(text, "S")[name][0][0]
        assert sentence["reference"] == lines(text, "T")[name][0][0]
        printed = lines(text, "D")[name]
        assert [found["text"] for found in candidates] == [words for _, words in printed]
        assert [found["score"] for found in candidates] == pytest.approx(
            [float(score) * math.log(2) for score, _ in printed], abs=1e-4
        )
        assert {(found["calls"], len(found["steps"])) for found in candidates} == {(3, 3)}
        for step in range(3):
            shown = [" ".join(found["steps"][step]["tokens"]) for found in candidates]
            assert [without(line, SILENT) for line in shown] == [
                without(line, SILENT) for (line,) in lines(text, "E")[f"{name}_{step}"]
            ]


def without(line: str, symbols: set[str]) -> list[str]:
    return [token for token in line.split() if token not in symbols]


def test_probabilities_of_the_last_step_are_those_of_the_words(folder: Path):
    """The P- lines have them in base 2, words and then the end."""
    text = (folder / "generate-test.txt").read_text()
    for sentence in histories.read(folder / NAME):
        for found, (line,) in zip(sentence["candidates"], lines(text, "P")[str(sentence["id"])]):
            tokens, p = found["steps"][-1]["tokens"], found["steps"][-1]["p"]
            words = [one for token, one in zip(tokens, p) if token not in SILENT]
            assert [*words, p[-1]] == pytest.approx([2 ** float(score) for score in line.split()], abs=2e-4)


def test_content_does_not_depend_on_the_batch(data: Path, checkpoint: Path, folder: Path, tmp_path: Path):
    generate(data, checkpoint, f"{FLAGS} --batch-size 1 --results-path {tmp_path}")
    alone, together = histories.read(tmp_path / NAME), histories.read(folder / NAME)
    assert rounded(alone) == pytest.approx(rounded(together), abs=2e-4)
    assert [texts(sentence) for sentence in alone] == [texts(sentence) for sentence in together]


def texts(sentence: dict[str, Any]) -> list[Any]:
    found = [
        [candidate["text"], *(step["tokens"] for step in candidate["steps"])] for candidate in sentence["candidates"]
    ]
    return [sentence["id"], sentence["source"], sentence["reference"], *found]


def rounded(sentences: list[dict[str, Any]]) -> list[float]:
    return [p for s in sentences for found in s["candidates"] for step in found["steps"] for p in step["p"]]


def test_nothing_is_written_unasked_and_an_older_history_does_not_stay_beside_another_report(
    data: Path, checkpoint: Path, folder: Path, tmp_path: Path
):
    (tmp_path / NAME).write_text((folder / NAME).read_text())
    generate(data, checkpoint, f"--results-path {tmp_path}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generate-test.json", "generate-test.txt", "replaced"]
    assert (tmp_path / "replaced/generate-test-1" / NAME).read_text() == (folder / NAME).read_text()


def test_a_file_of_the_same_name_is_not_replaced(data: Path, checkpoint: Path, tmp_path: Path):
    (tmp_path / NAME).write_text("precious\n")
    with pytest.raises(UserError, match="which we did not write; take another --results-path"):
        generate(data, checkpoint, f"{FLAGS} --results-path {tmp_path}")
    assert (tmp_path / NAME).read_text() == "precious\n"


def test_a_shard_has_its_own(data: Path, checkpoint: Path, tmp_path: Path):
    flags = f"{FLAGS} --distributed-world-size 2 --distributed-rank 1 --quiet --results-path {tmp_path}"
    generate(data, checkpoint, flags)
    found = histories.read(tmp_path / "generate-test.shard-1-of-2.history.jsonl")
    assert 0 < len(found) < SIZES["test"] and all(sentence["candidates"][0]["steps"] for sentence in found)


def test_words_are_joined_by_a_tokenizer_that_is_made_once(data: Path, checkpoint: Path, tmp_path: Path, monkeypatch):
    made, build = [], encoders.build_tokenizer
    monkeypatch.setattr(encoders, "build_tokenizer", lambda *args: made.append(args) or build(*args))
    generate(data, checkpoint, f"{FLAGS} --tokenizer moses --source-lang a --target-lang b --results-path {tmp_path}")
    assert len(histories.read(tmp_path / NAME)) == SIZES["test"] and 0 < len(made) <= 3
