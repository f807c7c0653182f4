"""Text of one language as pairs to pretrain on."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.files.spans import SPAN, paragraphs, without_span

TEXT = ["a b c", "d e", "", "f g h i j k l", "", "", "m", "n o"]


def test_paragraphs_end_where_they_are_full_and_at_empty_lines():
    found = [" ".join(words) for words in paragraphs(TEXT, 5)]
    assert found == ["a b c d e", "f g h i j", "k l", "m n o"]
    assert [" ".join(words) for words in paragraphs(TEXT, 4)] == ["a b c", "d e", "f g h i", "j k l", "m n o"]


def test_a_span_is_anywhere_and_the_rest_stays():
    words = [str(number) for number in range(10)]
    firsts = set()
    for seed in range(200):
        source, target = without_span(words, 0.35, random.Random(seed))
        place = source.index(SPAN)
        assert [*source[:place], *target, *source[place + 1 :]] == words and len(target) == 3
        firsts.add(place)
    assert firsts == set(range(8))
    assert without_span(["a"], 0.5, random.Random(1)) is None and without_span(words, 0.05, random.Random(1)) is None


def spans(text: Path, out: Path, *more: str) -> int:
    return main(["spans", str(text), "--out", str(out), "-s", "de", "-t", "en", *more])


def pairs(out: Path, split: str) -> list[tuple[str, str]]:
    return list(zip(*((out / f"{split}.{side}").read_text().splitlines() for side in ("de", "en"))))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "mono.en"
    path.write_text("".join(" ".join(f"w{i}.{j}" for j in range(8)) + "\n" for i in range(40)))
    return path


def test_pairs_of_a_text(text: Path, tmp_path: Path, capsys):
    """The first paragraphs to validate on; each of the others as often as asked for, with other spans."""
    (tmp_path / "dict.en.txt").write_text("w0.0 5\nw0.1 4\n")  # two words of 320
    more = ["--paragraph", "16", "--valid", "3", "--times", "4", "--dict", str(tmp_path / "dict.en.txt")]
    assert spans(text, tmp_path / "out", *more) == 0
    said = capsys.readouterr().out
    assert "68 pairs to train on and 3 to validate on" in said and "99.38% of the text's tokens are not in" in said
    train, valid = (pairs(tmp_path / "out", split) for split in ("train", "valid"))
    assert (len(train), len(valid)) == (17 * 4, 3)
    whole = [source.replace(SPAN, target) for source, target in valid + train[::4]]
    assert "\n".join(whole).split() == text.read_text().split()
    assert all(len(target.split()) == 4 for _, target in train)
    assert len(set(train[:4])) > 1
    assert (tmp_path / "out/dict.txt").read_text() == f"w0.0 5\nw0.1 4\n{SPAN} 1\n"
    assert spans(text, tmp_path / "again", *more) == 0
    assert pairs(tmp_path / "again", "train") == train
    assert spans(text, tmp_path / "other", *more, "--seed", "2") == 0
    assert pairs(tmp_path / "other", "train") != train


@pytest.mark.parametrize(
    "more, said",
    [
        (["--share", "1"], "--share is 1.0"),
        (["--paragraph", "1"], "--paragraph is 1"),
        (["--times", "0"], "--times 0"),
        (["-t", "de"], "are both de"),
        (["--valid", "40"], "gives no pair to train on: .* lower --valid"),
        (["--share", "0.001"], "too short for a span of 0.001"),
        (["--dict", "nothing.txt"], "--dict nothing.txt cannot be read"),
    ],
)
def test_what_is_refused_leaves_nothing(text: Path, tmp_path: Path, capsys, more, said):
    assert spans(text, tmp_path / "out", *more) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not list((tmp_path / "out").glob("*"))


def test_a_dictionary_of_other_words_is_refused(text: Path, tmp_path: Path, capsys):
    (tmp_path / "dict.de.txt").write_text("x 5\ny 4\n")
    assert spans(text, tmp_path / "out", "--dict", str(tmp_path / "dict.de.txt")) == 2
    assert "has no word of" in capsys.readouterr().err and not list((tmp_path / "out").glob("*"))


def test_earlier_pairs_and_the_word_itself_are_kept(text: Path, tmp_path: Path, capsys):
    assert spans(text, tmp_path / "out", "--valid", "2", "--paragraph", "16") == 0
    before = pairs(tmp_path / "out", "train")
    assert spans(text, tmp_path / "out", "--valid", "2", "--paragraph", "16", "--seed", "9") == 2
    assert "already exists" in capsys.readouterr().err and pairs(tmp_path / "out", "train") == before
    assert spans(text, tmp_path / "out", "--valid", "2", "--paragraph", "16", "--seed", "9", "--force") == 0
    assert pairs(tmp_path / "out", "train") != before
    text.write_text(f"a {SPAN} b\n")
    assert spans(text, tmp_path / "new") == 2
    assert f"has the word {SPAN}" in capsys.readouterr().err
