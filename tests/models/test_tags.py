"""Tags that say into which language to translate: which entries of a dictionary they are, and that parts know them."""

from __future__ import annotations

import pytest
from fairseq.data import Dictionary

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.errors import UserError  # noqa: E402
from fairseq_diffusion.models.base import tags_of  # noqa: E402
from fairseq_diffusion.tasks.dictionary import TableDictionary  # noqa: E402


def dictionary(*words: str) -> TableDictionary:
    made = TableDictionary()
    for word in words:
        made.add_symbol(word)
    return made


JOINED = dictionary("a", "<2de>", "b", "<2fr>", "<x>", "[2de]", "2")


@pytest.mark.parametrize(
    "text, words",
    [
        ("", []),
        ("<2fr>", ["<2fr>"]),
        ("<2de>,<2fr>", ["<2de>", "<2fr>"]),
        (" <2fr> , <2de>, ", ["<2fr>", "<2de>"]),
        ("<2*>", ["<2de>", "<2fr>"]),
        ("<2*>,<2de>", ["<2de>", "<2fr>"]),
        ("<*>", ["<2de>", "<2fr>", "<x>"]),  # neither <s>, <unk> nor the mask
        ("[2de]", ["[2de]"]),
        ("*2*,no*", ["<2de>", "<2fr>", "[2de]", "2"]),
    ],
)
def test_tags_are_entries_of_the_data_that_are_named(text, words):
    target = dictionary(*JOINED.symbols[Dictionary().nspecial :])
    target.add_mask()
    assert tags_of(text, JOINED, target) == tuple(map(JOINED.index, words))
    assert tags_of(text, JOINED, Dictionary()) == ()  # fairseq's own; the tags are in the sources alone


@pytest.mark.parametrize("name", ["<2it>", "<2de", "<unk>", "<mask>"])
def test_a_tag_that_no_dictionary_has_is_told(name):
    with pytest.raises(UserError, match=f"--tags names {name}, which is in neither dictionary .* behind BPE"):
        tags_of(f"<2de>,{name}", JOINED, JOINED)
