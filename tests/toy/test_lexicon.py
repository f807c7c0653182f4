from __future__ import annotations

import random

from fairseq_diffusion.toy.lexicon import SOURCE, TARGET, Coiner, Lexicon


def test_coined_words_differ_and_grow_when_short_ones_run_out():
    coiner = Coiner(SOURCE, random.Random(0))
    words = [coiner.new_word(1) for _ in range(200)]
    assert len(set(words)) == 200  # there are only 50 syllables
    assert {len(word) for word in words} == {2, 4}


def test_the_two_sides_sound_different():
    assert not any(SOURCE[2]) and all(TARGET[2])  # codas
    assert not set(SOURCE[0]) & set(TARGET[0])  # onsets


def test_counts_and_two_forms_for_half_of_the_content_words():
    lexicon = Lexicon(random.Random(0), nouns=12, verbs=6, adjectives=4, adverbs=2)
    for table, number in {"nouns": 12, "verbs": 6, "adjectives": 4, "adverbs": 2}.items():
        entries = getattr(lexicon, table).values()
        assert len(entries) == number
        assert sum(entry.stems[0] != entry.stems[1] for entry in entries) == number // 2
    neutral = [*lexicon.determiners.values(), *lexicon.prepositions.values()]
    assert all(entry.stems[0] == entry.stems[1] for entry in neutral)


def test_no_source_word_has_two_meanings():
    lexicon = Lexicon(random.Random(0), nouns=300, verbs=300, adjectives=300, adverbs=300)
    parts = ("nouns", "verbs", "adjectives", "adverbs", "determiners", "prepositions", "markers")
    words = [word for name in parts for word in getattr(lexicon, name)]
    plurals = {noun + "s" for noun in lexicon.nouns}
    assert len(words) == len(set(words))
    assert not plurals & set(words)


def test_every_class_has_nouns_with_and_without_two_forms():
    lexicon = Lexicon(random.Random(0), nouns=6, verbs=2, adjectives=2, adverbs=2)
    kinds = {(entry.noun_class, entry.stems[0] == entry.stems[1]) for entry in lexicon.nouns.values()}
    assert len(kinds) == 6
