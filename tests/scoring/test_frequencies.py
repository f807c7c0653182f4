"""Recall and precision of words by their number in training text, against counts by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import samples

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.scoring.comparison import compared
from fairseq_diffusion.scoring.frequencies import Training, bounds_of
from fairseq_diffusion.scoring.metrics import Options
from fairseq_diffusion.scoring.outputs import Output
from fairseq_diffusion.scoring.table import Markdown, Text, render

SOME = "a b c"


def training(folder: Path, lines: list[str], bounds: str = "1,10,100,1000") -> Training:
    return Training.read(samples.write(folder / "train", lines), bounds)


def scored(made: Training, hyp: list[str], *references: list[str], language: str = "en", **options: bool) -> Any:
    output = [Output("x", Path("x"), hyp)]
    paths = [Path("ref")] * len(references)
    return compared(output, paths, list(references), language, Options(**options), 0, made)[0]


def by_hand(counts: Counter[str], spans: list[range], hyp: list[list[str]], refs: list[list[list[str]]]) -> Any:
    """Recall, precision and F1, word by word: each occurrence is found if there are as many in the output."""
    found = []
    for span in spans:
        hit = wanted = right = printed = 0
        for i, own in enumerate(hyp):
            for file in refs:
                for place, word in enumerate(file[i]):
                    if counts[word] in span:
                        wanted += 1
                        hit += file[i][: place + 1].count(word) <= own.count(word)
            for place, word in enumerate(own):
                if counts[word] in span:
                    printed += 1
                    right += any(own[: place + 1].count(word) <= file[i].count(word) for file in refs)
        recall, precision = hit / wanted if wanted else None, right / printed if printed else None
        both = None if recall is None or precision is None else recall + precision
        f1 = None if both is None else 2 * recall * precision / both if both else 0.0
        found.append((recall, precision, f1, wanted, printed))
    return [list(column) for column in zip(*found)]


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("lowercase", [False, True])
def test_scores_are_those_by_hand(tmp_path: Path, files: int, lowercase: bool):
    """Of tokens as sacremoses makes them, in pieces and with escapes or as written."""
    text, references = samples.raw(25, seed=3), [samples.raw(30, seed) for seed in range(4, 4 + files)]
    references[0][0] += " zebra"  # which training text has not
    hyp = samples.worse(references[0], 0.5, seed=9)
    hyp[3] = ""
    form = (lambda line: line.lower()) if lowercase else str
    words = lambda lines: [form(line).split() for line in map(unescaped, samples.tokenised(lines))]  # noqa: E731
    counts = Counter(word for line in words(text) for word in line)
    spans = [range(1), range(1, 6), range(6, 20), range(20, 10**9)]
    refs = [words(file) for file in references]
    expected = by_hand(counts, spans, words(hyp), refs)
    forms = samples.tokenised(text)
    for lines in (text, forms, [samples.in_pieces(line) for line in forms]):
        found = scored(training(tmp_path, lines, "1,6,20"), hyp, *references, lowercase=lowercase)
        row, facts = found["rows"][0]["by_frequency"], found["frequencies"]
        got = [row["recall"], row["precision"], row["f1"], facts["reference_words"], row["words"]]
        for one, other in zip(got, expected):
            assert one == [None if value is None else pytest.approx(value, abs=1e-12) for value in other]
    assert sum(expected[3]) == sum(len(line) for file in refs for line in file) and min(expected[3]) > 0


def unescaped(line: str) -> str:
    for escape, mark in {"&apos;": "'", "&quot;": '"', "&amp;": "&"}.items():
        line = line.replace(escape, mark)
    return line


def test_what_an_output_is_told_by_is_its_tokens(tmp_path: Path):
    """Printed in Moses' form or detokenised: alike, and hyphens are split everywhere if one output splits them."""
    references = samples.raw(20)
    hyp, made = samples.worse(references, 0.3, 2), training(tmp_path, samples.tokenised(samples.raw(9, 5)))
    plain, printed = (scored(made, lines, references) for lines in (hyp, samples.tokenised(hyp)))
    assert plain["rows"][0]["by_frequency"] == printed["rows"][0]["by_frequency"]
    split = scored(made, samples.tokenised(hyp, aggressive_dash_splits=True), references)
    assert sum(split["frequencies"]["reference_words"]) > sum(plain["frequencies"]["reference_words"])


def test_the_ends_of_buckets(tmp_path: Path):
    """A word that occurs 9 times is not yet in the bucket from 10 on."""
    numbers = {"zero": 0, "one": 1, "nine": 9, "ten": 10, "most": 99, "hundred": 100, "many": 999, "thousand": 1000}
    made = training(tmp_path, [" ".join([word] * number) for word, number in numbers.items() if number])
    found = scored(made, ["zero one nine ten most hundred many thousand"], ["zero one nine ten most hundred many a"])
    assert found["frequencies"]["buckets"] == ["0", "1-9", "10-99", "100-999", "1000+"]
    assert found["frequencies"]["reference_words"] == [2, 2, 2, 2, 0]
    row = found["rows"][0]["by_frequency"]
    assert row["recall"] == [0.5, 1, 1, 1, None] and row["precision"] == [1, 1, 1, 1, 0]
    assert row["f1"] == [pytest.approx(2 / 3), 1, 1, 1, None]
    assert training(tmp_path, [SOME], "2,3,7").names == ["0-1", "2", "3-6", "7+"]
    assert training(tmp_path, [SOME], "5").names == ["0-4", "5+"]


def test_words_are_clipped_and_outputs_may_be_empty(tmp_path: Path):
    """b once in the reference is found once; a in another sentence is not found."""
    made = training(tmp_path, [SOME], "1")
    (row,) = scored(made, ["b b", "", "a"], ["b a", "c", "b"])["rows"]
    assert row["by_frequency"]["recall"] == [None, 0.25] and row["by_frequency"]["precision"] == [
        None,
        pytest.approx(1 / 3),
    ]
    (row,) = scored(made, ["", " ", "d"], ["b a", "c", "b"])["rows"]
    assert row["by_frequency"] == {"recall": [None, 0], "precision": [0, None], "f1": [None, None], "words": [1, 0]}


def test_several_references_are_recalled_together(tmp_path: Path):
    """A word is precise if one of them has it as often; what any of them has is to be found."""
    made = training(tmp_path, [SOME], "1")
    (row,) = scored(made, ["a a b"], ["a c"], ["a a"])["rows"]
    assert row["by_frequency"]["recall"][1] == 3 / 4 and row["by_frequency"]["precision"][1] == 2 / 3


def test_it_is_shown_behind_the_scores(tmp_path: Path):
    found = scored(training(tmp_path, [SOME], "1,2"), ["a b x"], ["a a c"])
    text, markdown = (render(found, style) for style in (Text(), Markdown()))
    lines = list(filter(None, text[text.index("words by how often they are in") :].splitlines()))
    assert lines[0].endswith("train:") and lines[1].split() == ["system", "measure", "0", "1", "2+"]
    cells = [line.split() for line in lines[3:7]]
    assert cells[0] == ["references", "number", "0", "3", "0"] and cells[1] == ["x", "recall", "-", "33.3%", "-"]
    assert cells[2:] == [["precision", "0.0%", "50.0%", "-"], ["F1", "-", "40.0%", "-"]]
    assert "| x | recall | - | 33.3% | - |" in markdown and "| system | measure | 0 | 1 | 2+ |" in markdown


@pytest.mark.parametrize("text", ["", "0,10", "10,10", "10,1", "1,x", "1,,2", "-1,5"])
def test_buckets_rise(text: str):
    with pytest.raises(UserError, match="are no numbers from 1 on that rise"):
        bounds_of(text)


def test_training_text_that_says_nothing_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="train is empty"):
        training(tmp_path, ["", " "])
    for language in ("", "zh"):
        with pytest.raises(UserError, match="cannot be tokenised here"):
            scored(training(tmp_path, [SOME]), ["a b"], ["a c"], language=language)
