"""From subword pieces to words and characters, by tables that are made once for a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fairseq_diffusion.decoding.ngrams import Sequences, unpadded
from fairseq_diffusion.files.texts import BEGINS, CONTINUES


class Part(NamedTuple):
    """What a piece, or a part of it, adds to a text."""

    text: str
    opens: bool  # a word begins with it
    closes: bool  # a word ends with it


def parts_of(symbol: str, mark: str | None) -> list[Part]:
    """Usually one part; a sentencepiece with a space inside has several."""
    if mark == BEGINS:
        texts = enumerate(symbol.split(BEGINS))
        return [Part(text, i > 0, False) for i, text in texts if i > 0 or text]  # most pieces begin with their mark
    goes_on = mark == CONTINUES and symbol.endswith(CONTINUES)
    return [Part(symbol.removesuffix(CONTINUES) if goes_on else symbol, False, not goes_on)]


def mark_of(symbols: Sequence[str]) -> str | None:
    """How a dictionary's symbols mark where words begin or go on: what most of the marked ones have; None: words."""
    found = {
        CONTINUES: sum(symbol.endswith(CONTINUES) for symbol in symbols),
        BEGINS: sum(symbol.startswith(BEGINS) for symbol in symbols),
    }
    return max(found, key=lambda mark: found[mark]) if any(found.values()) else None


class Table:
    """A list of integers for each number 0..V-1, looked up for many at once."""

    def __init__(self, lists: Sequence[Sequence[int]]):
        self.sizes = np.array([len(entry) for entry in lists], dtype=np.int64)
        self.values = np.array([value for entry in lists for value in entry], dtype=np.int64)
        self.first = np.cumsum(self.sizes) - self.sizes

    def expand(self, sequences: Sequences) -> Sequences:
        """Each item replaced by its list."""
        sizes = self.sizes[sequences.items]
        ends = np.cumsum(sizes)
        places = np.arange(sizes.sum()) + np.repeat(self.first[sequences.items] - ends + sizes, sizes)
        rows = np.bincount(sequences.rows, sizes, minlength=sequences.sizes.size).astype(np.int64)
        return Sequences(self.values[places], rows.reshape(sequences.sizes.shape))


class Pieces:
    """Texts that pieces make, as ``dictionary.string`` would join them."""

    def __init__(self, dictionary: Any):
        mark = mark_of(dictionary.symbols[dictionary.nspecial :])
        parts = [parts_of(symbol, mark) for symbol in dictionary.symbols]
        number = {part: i for i, part in enumerate(dict.fromkeys(part for entry in parts for part in entry))}
        self.texts = [part.text for part in number]
        self.opens = np.array([part.opens for part in number])
        self.closes = np.array([part.closes for part in number])
        self.parts = Table([[number[part] for part in entry] for entry in parts])
        texts = ["".join("".join(part.text for part in entry).split()) for entry in parts]
        self.codes = Table([[ord(character) for character in text] for text in texts])
        self.numbers = {"": 0}  # words to numbers; it grows with the words that are met
        self.alone = np.array([self._number(text) for text in self.texts])
        self.merged: dict[bytes, int] = {}  # parts that make up a word, to its number

    def characters(self, tokens: np.ndarray, sizes: np.ndarray) -> Sequences:
        """Code points of the texts of tokens [S, U, L], of which sizes [S, U] count; no spaces."""
        return self.codes.expand(unpadded(tokens, sizes))

    def words(self, tokens: np.ndarray, sizes: np.ndarray) -> Sequences:
        """Words of the texts of tokens [S, U, L], of which sizes [S, U] count, as numbers: equal words, equal numbers,
        however they are cut into pieces."""
        parts = self.parts.expand(unpadded(tokens, sizes))
        rows = parts.rows
        begins = np.ones(len(rows), dtype=bool)
        begins[1:] = (rows[1:] != rows[:-1]) | self.opens[parts.items[1:]] | self.closes[parts.items[:-1]]
        first = np.flatnonzero(begins)
        end = np.append(first[1:], len(rows))
        words = self.alone[parts.items[first]]
        for i in np.flatnonzero(end - first > 1):
            words[i] = self._merge(parts.items[first[i] : end[i]])
        real = words > 0
        counts = np.bincount(rows[first][real], minlength=sizes.size)
        return Sequences(words[real], counts.reshape(sizes.shape))

    def _merge(self, parts: np.ndarray) -> int:
        """Number of the word that parts [n] make up."""
        key = parts.tobytes()
        if key not in self.merged:
            self.merged[key] = self._number("".join(self.texts[part] for part in parts))
        return self.merged[key]

    def _number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))
