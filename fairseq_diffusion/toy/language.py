"""The toy language: draws source sentences, and lists all their translations."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.grammar import NounPhrase, Sentence, parse, spellings
from fairseq_diffusion.toy.lexicon import FORMAL, INFORMAL, Entry, Lexicon

SHORTEST, LONGEST = 4, 12  # source words in a sentence that is drawn
ADVERB, PLACE, DETERMINER, COMPOUND, PLURAL = 0.35, 0.25, 0.6, 0.2, 0.4  # how often each is there
ADJECTIVES = (0.6, 0.3, 0.1)  # how often a noun phrase has none, one, two
MOST = 1000  # words of a kind


class Language:
    """A toy language, fixed by its options: the same options always give the same words.

    `ambiguity` is the share of drawn sentences whose register is not marked; the others have a particle for it.
    """

    def __init__(
        self,
        seed: int = 1,
        nouns: int = 40,
        verbs: int = 20,
        adjectives: int = 16,
        adverbs: int = 8,
        ambiguity: float = 0.5,
    ):
        counts = {"nouns": nouns, "verbs": verbs, "adjectives": adjectives, "adverbs": adverbs}
        for name, number in counts.items():
            if not 2 <= number <= MOST:
                raise UserError(f"a toy language needs at least 2 {name}, not {number}, and at most {MOST}")
        if not 0 <= ambiguity <= 1:
            raise UserError(f"ambiguity is a share of the sentences, so it must be between 0 and 1, not {ambiguity}")
        self.options = {"seed": seed, **counts, "ambiguity": ambiguity}
        self.ambiguity = ambiguity
        self.lexicon = Lexicon(random.Random(f"lexicon {seed}"), **counts)
        self._tables = {
            name: tuple(getattr(self.lexicon, name).values()) for name in (*counts, "determiners", "prepositions")
        }

    def sample(self, rng: random.Random) -> str:
        """Draw a source sentence."""
        ambiguous = rng.random() < self.ambiguity
        while True:
            sentence = self._draw_sentence(rng, None if ambiguous else rng.choice((FORMAL, INFORMAL)))
            words = sentence.source_words(self.lexicon)
            # Without a particle a sentence of neutral words alone may come up, which is not ambiguous: draw again.
            if SHORTEST <= len(words) <= LONGEST and (len(sentence.translations()) > 1) == ambiguous:
                return " ".join(words)

    def translations(self, source: str) -> list[str]:
        """Every valid translation of a source sentence; the formal one first where there are two."""
        return parse(source, self.lexicon).translations()

    def is_ambiguous(self, source: str) -> bool:
        return len(self.translations(source)) > 1

    def spellings(self, source: str) -> list[set[str]]:
        """For each word of the translation, all its spellings when the register is ignored."""
        return [spellings(word) for word in parse(source, self.lexicon).target_words()]

    def _draw_sentence(self, rng: random.Random, register: int | None) -> Sentence:
        has_place = rng.random() < PLACE
        return Sentence(
            adverb=maybe(rng, ADVERB, self._tables["adverbs"]),
            subject=self._draw_noun_phrase(rng),
            verb=rng.choice(self._tables["verbs"]),
            object=self._draw_noun_phrase(rng),
            preposition=rng.choice(self._tables["prepositions"]) if has_place else None,
            place=self._draw_noun_phrase(rng) if has_place else None,
            register=register,
        )

    def _draw_noun_phrase(self, rng: random.Random) -> NounPhrase:
        adjectives = rng.choices(range(len(ADJECTIVES)), ADJECTIVES)[0]
        return NounPhrase(
            determiner=maybe(rng, DETERMINER, self._tables["determiners"]),
            adjectives=tuple(rng.sample(self._tables["adjectives"], adjectives)),
            modifier=maybe(rng, COMPOUND, self._tables["nouns"]),
            noun=rng.choice(self._tables["nouns"]),
            plural=rng.random() < PLURAL,
        )


def maybe(rng: random.Random, share: float, entries: Sequence[Entry]) -> Entry | None:
    """One of the entries in `share` of the cases, else None."""
    return rng.choice(entries) if rng.random() < share else None
