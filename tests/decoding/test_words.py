"""Words and characters from pieces, against fairseq's own joining."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from fairseq_diffusion.decoding.ngrams import Sequences
from fairseq_diffusion.decoding.words import Pieces, mark_of
from fairseq_diffusion.files.texts import BEGINS, CONTINUES

SUBWORD_NMT = ["the", "c@@", "at", "ca@@", "t", "@@", "@", "a@", "@@@", "ü@@", "ber", "日@@", "本", "at@@", "@@x"]
SENTENCEPIECE = ["▁the", "▁c", "at", "▁ca", "t", "▁", "▁▁", "a▁b", "x▁", "本", "▁日", "@@", "▁über", "▁@@"]
PLAIN = ["the", "cat", "c@t", "über", "日本"]
KINDS = {"subword_nmt": SUBWORD_NMT, "sentencepiece": SENTENCEPIECE, None: PLAIN}


def dictionary_of(symbols: list[str]) -> Dictionary:
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


def random_batch(dictionary: Dictionary, rng: random.Random, longest: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [3, 4, longest] and sizes [3, 4]; unknown words too, and nothing at all."""
    sizes = np.array([[rng.randint(0, longest) for _ in range(4)] for _ in range(3)])
    tokens = np.full((3, 4, longest), -1)
    for place, size in np.ndenumerate(sizes):
        tokens[place][:size] = [rng.randrange(dictionary.unk(), len(dictionary)) for _ in range(size)]
    return tokens, sizes


def split(sequences: Sequences) -> list[list[int]]:
    return [part.tolist() for part in np.split(sequences.items, np.cumsum(sequences.sizes.ravel())[:-1])]


def texts(dictionary: Dictionary, tokens: np.ndarray, sizes: np.ndarray, kind: str | None) -> list[str]:
    rows = [row[:size] for row, size in zip(tokens.reshape(-1, tokens.shape[-1]), sizes.ravel())]
    return [dictionary.string(torch.tensor(row), bpe_symbol=kind) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_those_of_the_dictionarys_string(kind: str | None) -> None:
    dictionary, rng = dictionary_of(KINDS[kind]), random.Random(1)
    pieces = Pieces(dictionary)
    for _ in range(300):
        tokens, sizes = random_batch(dictionary, rng)
        found = split(pieces.words(tokens, sizes))
        words = list(pieces.numbers)
        wanted = [text.split() for text in texts(dictionary, tokens, sizes, kind)]
        assert [[words[number] for number in row] for row in found] == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_characters_are_those_of_the_dictionarys_string(kind: str | None) -> None:
    dictionary, rng = dictionary_of(KINDS[kind]), random.Random(2)
    pieces = Pieces(dictionary)
    for _ in range(100):
        tokens, sizes = random_batch(dictionary, rng)
        found = split(pieces.characters(tokens, sizes))
        wanted = ["".join(text.split()) for text in texts(dictionary, tokens, sizes, kind)]
        assert ["".join(map(chr, row)) for row in found] == wanted


def test_a_word_is_the_same_however_it_is_cut() -> None:
    dictionary = dictionary_of(["c@@", "at", "ca@@", "t", "cat"])
    cuts = [["c@@", "at"], ["ca@@", "t"], ["cat"]]
    tokens = np.array([[[dictionary.index(piece) for piece in cut] + [-1] * (2 - len(cut)) for cut in cuts]])
    words = Pieces(dictionary).words(tokens, np.array([[len(cut) for cut in cuts]]))
    assert words.sizes.tolist() == [[1, 1, 1]] and len(set(words.items.tolist())) == 1


def test_a_word_does_not_go_on_in_the_next_candidate() -> None:
    dictionary = dictionary_of(["c@@", "at"])
    tokens = np.array([[[dictionary.index("c@@")], [dictionary.index("at")]]])
    pieces = Pieces(dictionary)
    found = split(pieces.words(tokens, np.array([[1, 1]])))
    assert [[list(pieces.numbers)[number] for number in row] for row in found] == [["c"], ["at"]]


def test_the_marking_is_told_from_the_symbols() -> None:
    marks = [mark_of(symbols) for symbols in (SUBWORD_NMT, SENTENCEPIECE, PLAIN, [])]
    assert marks == [CONTINUES, BEGINS, None, None]
