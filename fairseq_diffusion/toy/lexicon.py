"""The words of the toy language: pronounceable, built from syllables, which differ between source and target."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import count

FORMAL, INFORMAL = 0, 1
NOUN_CLASSES = 3
DETERMINERS, PREPOSITIONS = 3, 4
SYLLABLES = {"determiners": 1, "prepositions": 1, "nouns": 2, "verbs": 2, "adjectives": 2, "adverbs": 2}
TRIES_PER_LENGTH = 50  # words that are taken already, before a longer one is tried


# Onsets, nuclei and codas of syllables. Source syllables are open: no source word ends in the "s" that marks a plural.
SOURCE = ("p t k m n s l r w y".split(), "a e i o u".split(), [""])
TARGET = ("b d g v z h br dr gl fl".split(), "a e o u ei au".split(), "n r k m st".split())
OTHER_TARGETS = (
    ("f j sh ch kr tr sp".split(), "i u oa ea".split(), "p t b d ng".split()),
    ("q x c th pl pr".split(), "y ai uo oe".split(), "l f ts x".split()),
)


class Coiner:
    """Coins words of one side, never the same one twice."""

    def __init__(self, parts: Sequence[Sequence[str]], rng: random.Random):
        self.parts, self.rng = parts, rng
        self.taken: set[str] = set()

    def new_word(self, syllables: int) -> str:
        """A new word of so many syllables, or of more when short ones are used up."""
        for attempt in count():
            length = syllables + attempt // TRIES_PER_LENGTH
            word = "".join(self.rng.choice(part) for _ in range(length) for part in self.parts)
            if word not in self.taken:
                break
        self.taken.add(word)
        return word


@dataclass(frozen=True)
class Entry:
    """A source word and its two target stems (formal, informal), which are the same in a register-neutral word."""

    source: str
    stems: tuple[str, str]
    noun_class: int = 0


class Lexicon:
    """Every entry by its source word, one table per part of speech; ``markers`` gives the register of a particle."""

    def __init__(self, rng: random.Random, nouns: int, verbs: int, adjectives: int, adverbs: int):
        self._source, self._target = Coiner(SOURCE, rng), Coiner(TARGET, rng)
        self.markers = {self._source.new_word(1): register for register in (FORMAL, INFORMAL)}
        self.determiners = self._function_words(DETERMINERS)
        self.prepositions = self._function_words(PREPOSITIONS)
        self.nouns = self._content_words(nouns)
        self.verbs = self._content_words(verbs)
        self.adjectives = self._content_words(adjectives)
        self.adverbs = self._content_words(adverbs)

    def _function_words(self, number: int) -> dict[str, Entry]:
        """Short words that are the same in both registers."""
        entries = (Entry(self._source.new_word(1), (self._target.new_word(1),) * 2) for _ in range(number))
        return {entry.source: entry for entry in entries}

    def _content_words(self, number: int) -> dict[str, Entry]:
        """Every other word has two register forms; noun classes (which only nouns use) go round in turn."""
        words = {}
        for i in range(number):
            formal = self._target.new_word(2)
            informal = self._target.new_word(2) if i % 2 == 0 else formal
            source = self._source.new_word(2)
            words[source] = Entry(source, (formal, informal), noun_class=i % NOUN_CLASSES)
        return words

    def retold(self, parts: Sequence[Sequence[str]], rng: random.Random) -> Lexicon:
        """The same source words with the stems of another target language, built from syllables of its own."""
        other, coiner = copy(self), Coiner(parts, rng)
        for name, syllables in SYLLABLES.items():
            table = getattr(self, name)
            setattr(other, name, {source: recoined(entry, coiner, syllables) for source, entry in table.items()})
        return other


def recoined(entry: Entry, coiner: Coiner, syllables: int) -> Entry:
    """With as many different stems as it had."""
    stems = {stem: coiner.new_word(syllables) for stem in entry.stems}
    return replace(entry, stems=(stems[entry.stems[0]], stems[entry.stems[1]]))
