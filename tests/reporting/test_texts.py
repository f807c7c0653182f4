"""From printed words to text as people write it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.reporting.record import Tee
from fairseq_diffusion.reporting.texts import Surface
from fairseq_diffusion.texts import language_of, pieces_in, read_lines


def surface(texts: list[str], language: str = "en", post_process: Any = None, bpe: Any = None) -> tuple[list[str], str]:
    cfg = SimpleNamespace(common_eval=SimpleNamespace(post_process=post_process), bpe=bpe, tokenizer=None)
    made = Surface(cfg, None, language, texts)
    return [made(text) for text in texts], made.how


def test_pieces_left_are_joined_before_words():
    assert surface(["Hel@@ lo , wor@@ ld &quot; !", "en@@"]) == (['Hello, world "!', "en"], "sacremoses (en)")


def test_words_without_pieces_are_joined():
    assert surface(["l&apos; amour , toujours"], "fr", "@@ ") == (["l'amour, toujours"], "sacremoses (fr)")


@pytest.mark.parametrize("texts, asked", [(["\u2581A \u2581b , c"], None), (["A b , c"], "sentencepiece")])
def test_sentence_pieces_hold_raw_text(texts: list[str], asked: str | None):
    (text,), how = surface(texts, post_process=asked)
    assert text == {None: "A b,c", "sentencepiece": "A b , c"}[asked] and how == "sentencepiece alone"


def test_sentencepiece_as_fairseqs_bpe_section():
    assert surface(["A ,"], bpe=SimpleNamespace(_name="sentencepiece")) == (["A ,"], "sentencepiece alone")


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


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_unreadable_references(tmp_path, content: bytes | None):
    if content:
        (tmp_path / "raw").write_bytes(content)
    with pytest.raises(UserError, match="--raw-reference .*raw cannot be read"):
        read_lines(tmp_path / "raw", "--raw-reference")


def test_tee_shows_whole_lines_and_writes_as_they_come(tmp_path):
    seen: list[str] = []
    with open(tmp_path / "out", "w") as file:
        tee = Tee(file, seen.append)
        print("a", "b", file=tee)
        for part in ("c", "d\ne", "\n", "f"):
            tee.write(part)
        tee.flush()
    assert seen == ["a b", "cd", "e"] and (tmp_path / "out").read_text() == "a b\ncd\ne\nf"
