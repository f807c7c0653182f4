"""Lines, pieces and words."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples
from fairseq.data.data_utils import post_process

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.texts import Moses, join_pieces, language_of, looks_tokenised, pieces_in, read_lines


@pytest.mark.parametrize(
    "text", ["a@@ b c", "a@@", "a@@b", "", "@@ a", "a b@@ c@@ d", "\u2581a b \u2581c", "\u2581", "a <unk> b"]
)
@pytest.mark.parametrize("kind", ["subword_nmt", "sentencepiece", None])
def test_pieces_are_joined_as_fairseq_joins_them(text: str, kind: str | None):
    assert join_pieces(text, kind) == post_process(text, kind)


def test_what_looks_tokenised():
    lines = samples.raw(50)
    assert not looks_tokenised(lines) and looks_tokenised(samples.tokenised(lines))
    assert looks_tokenised(samples.tokenised(lines, escape=False))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], False),
        (["", " "], False),
        (["Quoi ?", "Oui : moi ; toi !"], False),  # as the French write
        (["a b", "c d"], False),
        (["R&amp;D"], False),  # not a mark: XML of many corpora has it
        (["don &apos;t"], True),
        (["\u4f60 \u597d \u3002"], True),
        (["a ."] + ["b."] * 9, True),
        (["a ."] + ["b."] * 10, False),
        (["a , b"] + [""] * 90, True),
    ],
)
def test_a_tenth_of_the_lines_decides(lines: list[str], said: bool):
    assert looks_tokenised(lines) is said


def test_moses_there_and_back():
    moses = Moses("en", split_hyphens=True)
    words = ["Well", "@-@", "known", ",", "don", "'t", "!"]
    assert moses.tokens("Well-known, don't!") == words
    assert moses.text("Well @-@ known , don &apos;t !") == "Well-known, don't!"
    assert moses.unescaped("Well @-@ known , don &apos;t !") == words
    assert Moses("en").tokens("Well-known") == ["Well-known"]


def test_windows_line_ends_change_nothing(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one two\r\n\r\nthree")
    assert read_lines(tmp_path / "a", "--ref") == ["one two", "", "three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\ufeffa\n".encode(), "--ref .* begins with a byte-order mark"),
        ("\u00e4\n".encode("latin-1"), "--ref .* cannot be read .*; name a text file in UTF-8"),
        ("a\n".encode("utf-16"), "--ref .* cannot be read"),
        (None, "--ref .* cannot be read .*No such file"),
    ],
)
def test_other_encodings_are_refused(tmp_path: Path, content: bytes | None, message: str):
    if content:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_lines(tmp_path / "a", "--ref")


@pytest.mark.parametrize(
    "texts, kind",
    [(["a b"], None), (["a", "b@@ c"], "subword_nmt"), (["a@@"], "subword_nmt"), (["a@@b"], None), ([], None)],
)
def test_pieces_in(texts: list[str], kind: str | None):
    assert pieces_in(texts) == kind


@pytest.mark.parametrize("name, language", [("zh_CN", "zh"), ("pt-br", "pt"), ("de", "de"), (None, "")])
def test_language_of(name: str | None, language: str):
    assert language_of(name) == language


def test_only_line_feeds_end_lines(tmp_path):
    (tmp_path / "raw").write_bytes("a\r\n\nb\u2028c\x0cd\re\n".encode())
    assert read_lines(tmp_path / "raw", "--raw-reference") == ["a", "", "b\u2028c\x0cd\re"]
