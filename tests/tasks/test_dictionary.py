"""The table gives fairseq's text, whatever is asked."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import pytest
import torch
from fairseq.data import Dictionary

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.tasks.dictionary import TableDictionary

WORDS = ["the", "ca@@", "t", "\u2581new", "\u2581", "l|", "etter", "w_EOW", "<SIL>", "_", "@@", "<<unk>>", "ä"]
PIECES = [None, "@@ ", "@@", "subword_nmt", "sentencepiece", "wordpiece", "letter", "_EOW", "silence", "none"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "dict.txt"
    path.write_text("".join(f"{word} {i}\n" for i, word in enumerate(WORDS)), encoding="utf-8")
    return str(path)


@pytest.fixture
def both(file: str) -> tuple[Dictionary, TableDictionary]:
    return Dictionary.load(file), TableDictionary.load(file)


def sentence(rng: random.Random, longest: int = 15) -> torch.Tensor:
    """Any number, also beyond the table's 17 and, as padding in some tasks, below zero."""
    return torch.tensor([rng.randint(-2, 20) for _ in range(rng.randint(0, longest))], dtype=torch.long)


@pytest.mark.parametrize("count", [2**63, -1, 10**30])
def test_a_count_that_no_tensor_holds(tmp_path: Path, count: int):
    (tmp_path / "dict.txt").write_text(f"a 3\nb {count}\n")
    with pytest.raises(UserError, match=rf"dict.txt cannot be read .the count of 'b' is {count}\)"):
        TableDictionary.load(str(tmp_path / "dict.txt"))


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("rows", [None, 4])
def test_every_combination_of_arguments(both: tuple[Dictionary, TableDictionary], pieces: str | None, rows: int | None):
    fairseqs, ours = both
    rng = random.Random(1)
    choices = product((False, True), (None, [5], {1, 4}), (None, "?", ""), (False, True), (" ", "", "+"))
    for escape, ignore, unknown, eos, separator in choices:
        tokens = sentence(rng) if rows is None else torch.randint(0, 20, (rows, 9))
        arguments = (tokens, pieces, escape, ignore, unknown, eos, separator)
        assert ours.string(*arguments) == fairseqs.string(*arguments)


@pytest.mark.parametrize("form", [torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.int, list])
def test_other_forms_of_a_sentence(both: tuple[Dictionary, TableDictionary], form):
    fairseqs, ours = both
    for seed in range(20):
        tokens = form(sentence(random.Random(seed)))
        assert ours.string(tokens, "@@ ", escape_unk=True) == fairseqs.string(tokens, "@@ ", escape_unk=True)


def test_a_dictionary_without_a_begin_symbol_shows_its_word(both: tuple[Dictionary, TableDictionary]):
    for dictionary in both:
        assert dictionary.string(torch.tensor([0, 4])) == "the"
        del dictionary.bos_index
        assert dictionary.string(torch.tensor([0, 4])) == "<s> the"


def test_words_added_later_are_known(both: tuple[Dictionary, TableDictionary]):
    for dictionary in both:
        number = dictionary.add_symbol("late")
        assert dictionary.string(torch.tensor([number])) == "late"


def test_load_gives_an_equal_dictionary(both: tuple[Dictionary, TableDictionary]):
    fairseqs, ours = both
    assert type(ours) is TableDictionary and ours == fairseqs and len(ours) == len(WORDS) + 4


def test_unknown_kinds_of_pieces_are_refused_as_by_fairseq(both: tuple[Dictionary, TableDictionary]):
    for dictionary in both:
        with pytest.raises(NotImplementedError):
            dictionary.string(torch.tensor([5]), "hieroglyphs")
