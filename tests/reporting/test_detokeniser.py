"""From printed words to text as people write it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fairseq_diffusion.files.texts import join_pieces, pieces_in
from fairseq_diffusion.reporting.texts import detokeniser, name_of


def detokenised(texts: list[str], language: str = "en", bpe_name: str | None = None) -> tuple[list[str], str]:
    pieces = pieces_in(texts)
    join, how = detokeniser(SimpleNamespace(tokenizer=None, bpe_name=bpe_name), language, pieces)
    return [join(join_pieces(text, pieces)) for text in texts], how


def test_pieces_left_are_joined_before_words():
    assert detokenised(["Hel@@ lo , wor@@ ld &quot; !", "en@@"]) == (['Hello, world "!', "en"], "sacremoses (en)")


def test_words_without_pieces_are_joined():
    assert detokenised(["l&apos; amour , toujours"], "fr", "@@ ") == (["l'amour, toujours"], "sacremoses (fr)")


@pytest.mark.parametrize("texts, asked", [(["\u2581A \u2581b , c"], None), (["A b , c"], "sentencepiece")])
def test_sentence_pieces_hold_raw_text(texts: list[str], asked: str | None):
    (text,), how = detokenised(texts, bpe_name=asked)
    assert text == {None: "A b,c", "sentencepiece": "A b , c"}[asked] and how == "sentencepiece alone"


@pytest.mark.parametrize("choice", [SimpleNamespace(_name="moses"), "moses"])
def test_the_name_of_a_part_of_fairseqs_configuration(choice: object):
    assert name_of(choice) == "moses" and name_of(None) is None
