"""Templates as text become rows of word pieces and gaps."""

from __future__ import annotations

import pytest

from fairseq_diffusion.alignment.template import GAP
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.templates import template_row
from fairseq_diffusion.tasks.dictionary import TableDictionary


def dictionary(mask: bool = False) -> TableDictionary:
    """Pieces a@@ to d@@ and a to d, from 4 on."""
    made = TableDictionary()
    for piece in ("a@@", "b@@", "c@@", "d@@", "a", "b", "c", "d"):
        made.add_symbol(piece)
    if mask:
        made.add_mask()
    return made


def letters(text: str) -> str:
    """A BPE that knows letters alone."""
    return " ".join("@@ ".join(word) for word in text.split())


@pytest.mark.parametrize(
    "text, row",
    [
        ("___", [GAP]),
        ("ab", [4, 9]),
        ("___ ab c ___", [GAP, 4, 9, 10, GAP]),
        (" a ___  ___ ___ b", [8, GAP, 9]),
        ("a ___ a", [8, GAP, 8]),
    ],
)
def test_words_and_gaps(text: str, row: list[int]):
    assert template_row(text, letters, dictionary()).tolist() == [*row, 2]


def test_each_segment_is_prepared_by_itself():
    seen: list[str] = []
    template_row("a b ___ c ___ d a ___", lambda text: seen.append(text) or text, dictionary())
    assert seen == ["a b", "c", "d a"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("  ", "a template is empty; write ___"),
        ("___ ae", "'ae', but its piece 'e' is not in the target dictionary"),
        ("a____b", "'_@@' is not in the target dictionary"),  # no gap, as it does not stand alone
    ],
)
def test_what_is_refused(text: str, words: str):
    with pytest.raises(UserError, match=words):
        template_row(text, letters, dictionary())


def test_special_symbols_are_no_words():
    for symbol in ("<s>", "<pad>", "</s>", "<mask>"):
        with pytest.raises(UserError, match="is a special symbol"):
            template_row(f"a {symbol}", str, dictionary(mask=True))
    with pytest.raises(UserError, match="nothing is left"):
        template_row("___ a", lambda text: "", dictionary())
