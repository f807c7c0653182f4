"""The sentences of the toy language: their structure, how the source is read, and how the target is built.

Source:  [adverb] subject verb object [preposition noun-phrase] [register particle]
         a noun phrase is [determiner] adjective* [noun] noun; only its head shows number, and nothing shows its class.
Target:  [noun-phrase postposition] subject object [adverb] verb
         a noun phrase is [determiner] noun adjective*; determiners and adjectives agree with the class and number of
         their noun, the verb with those of its subject; noun-noun becomes one word with a linking element.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from itertools import product

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.lexicon import Entry, Lexicon

SOURCE_PLURAL = "s"
# Endings by noun class (and, where there are pairs, by number: singular, plural).
NOUN_PLURAL = ("i", "a", "eth")
LINK = ("s", "en", "")
CONCORD = (("us", "ir"), ("a", "ae"), ("on", "oi"))
VERB_ENDING = (("it", "int"), ("ath", "anth"), ("ol", "onol"))

NOUN_PHRASE = "D?A{0,2}N?[Nn]"
SENTENCE = re.compile(f"(R?)({NOUN_PHRASE})(V)({NOUN_PHRASE})(?:(P)({NOUN_PHRASE}))?(M?)")

Morph = tuple[str, str]  # its spelling in the formal and in the informal register
Word = tuple[Morph, ...]


@dataclass(frozen=True)
class NounPhrase:
    """[determiner] adjectives [modifier] noun; `modifier` is the first noun of a compound."""

    determiner: Entry | None
    adjectives: tuple[Entry, ...]
    modifier: Entry | None
    noun: Entry
    plural: bool

    def source_words(self) -> list[str]:
        before = [self.determiner, *self.adjectives, self.modifier]
        return [entry.source for entry in before if entry] + [self.noun.source + SOURCE_PLURAL * self.plural]

    def target_words(self) -> list[Word]:
        concord = CONCORD[self.noun.noun_class][self.plural]
        determiner = [inflect(self.determiner, concord)] if self.determiner else []
        return [*determiner, self.target_noun(), *(inflect(entry, concord) for entry in reversed(self.adjectives))]

    def target_noun(self) -> Word:
        head = inflect(self.noun, NOUN_PLURAL[self.noun.noun_class] if self.plural else "")
        return inflect(self.modifier, LINK[self.modifier.noun_class]) + head if self.modifier else head


@dataclass(frozen=True)
class Sentence:
    """One clause; `register` is that of its particle, None without one."""

    adverb: Entry | None
    subject: NounPhrase
    verb: Entry
    object: NounPhrase
    preposition: Entry | None
    place: NounPhrase | None
    register: int | None

    def source_words(self, lexicon: Lexicon) -> list[str]:
        words = [self.adverb.source] if self.adverb else []
        words += [*self.subject.source_words(), self.verb.source, *self.object.source_words()]
        if self.preposition and self.place:
            words += [self.preposition.source, *self.place.source_words()]
        return words + [word for word, register in lexicon.markers.items() if register == self.register]

    def target_words(self) -> list[Word]:
        place = [*self.place.target_words(), inflect(self.preposition)] if self.preposition and self.place else []
        adverb = [inflect(self.adverb)] if self.adverb else []
        verb = inflect(self.verb, VERB_ENDING[self.subject.noun.noun_class][self.subject.plural])
        return [*place, *self.subject.target_words(), *self.object.target_words(), *adverb, verb]

    def translations(self) -> list[str]:
        """Every valid translation: one per register that the source allows, those that coincide given once."""
        words = self.target_words()
        registers = (0, 1) if self.register is None else (self.register,)
        return list(dict.fromkeys(" ".join(spell(word, register) for word in words) for register in registers))


def inflect(entry: Entry, ending: str = "") -> Word:
    return (entry.stems, (ending, ending))


def spell(word: Word, register: int) -> str:
    return "".join(morph[register] for morph in word)


def spellings(word: Word) -> set[str]:
    """Every spelling of a word when each of its morphs may be in either register."""
    return set(map("".join, product(*word)))


def parse(source: str, lexicon: Lexicon) -> Sentence:
    """Read a source sentence; one that is not in the language is a :class:`UserError`."""
    words = source.split()
    match = SENTENCE.fullmatch("".join(tag(word, lexicon) for word in words))
    if match is None:
        raise UserError(f"{source!r} is not a sentence of this toy language: the grammar has no such order of words")
    adverb, subject, verb, object_, preposition, place, marker = (words[slice(*match.span(i))] for i in range(1, 8))
    return Sentence(
        adverb=lexicon.adverbs[adverb[0]] if adverb else None,
        subject=parse_noun_phrase(subject, lexicon),
        verb=lexicon.verbs[verb[0]],
        object=parse_noun_phrase(object_, lexicon),
        preposition=lexicon.prepositions[preposition[0]] if match[5] else None,
        place=parse_noun_phrase(place, lexicon) if match[6] else None,
        register=lexicon.markers[marker[0]] if marker else None,
    )


def tag(word: str, lexicon: Lexicon) -> str:
    """One letter for the part of speech of a source word; a plural noun is ``n``."""
    tables: dict[str, Container[str]] = {
        "R": lexicon.adverbs,
        "D": lexicon.determiners,
        "A": lexicon.adjectives,
        "N": lexicon.nouns,
        "V": lexicon.verbs,
        "P": lexicon.prepositions,
        "M": lexicon.markers,
    }
    for letter, table in tables.items():
        if word in table:
            return letter
    if word.endswith(SOURCE_PLURAL) and word.removesuffix(SOURCE_PLURAL) in lexicon.nouns:
        return "n"
    raise UserError(f"{word!r} is not a source word of this toy language; was the corpus made with other options?")


def parse_noun_phrase(words: list[str], lexicon: Lexicon) -> NounPhrase:
    nouns = [word for word in words[:-1] if word in lexicon.nouns]
    return NounPhrase(
        determiner=lexicon.determiners.get(words[0]),
        adjectives=tuple(lexicon.adjectives[word] for word in words if word in lexicon.adjectives),
        modifier=lexicon.nouns[nouns[0]] if nouns else None,
        noun=lexicon.nouns[words[-1].removesuffix(SOURCE_PLURAL)],
        plural=words[-1].endswith(SOURCE_PLURAL),
    )
