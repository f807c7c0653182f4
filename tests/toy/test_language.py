from __future__ import annotations

import random

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.language import LONGEST, SHORTEST, Language


def draw(language: Language, number: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [language.sample(rng) for _ in range(number)]


def test_the_options_and_the_seed_fix_everything():
    assert draw(Language(seed=3), 50) == draw(Language(seed=3), 50)
    assert set(Language(seed=3).lexicon.nouns) != set(Language(seed=4).lexicon.nouns)
    sources = draw(Language(seed=3), 50)
    assert [Language(seed=3).translations(s) for s in sources] == [Language(seed=3).translations(s) for s in sources]


def test_options_rebuild_the_language():
    language = Language(seed=7, nouns=9, verbs=3, adjectives=5, adverbs=2, ambiguity=0.25)
    assert language.options == {
        "seed": 7, "nouns": 9, "verbs": 3, "adjectives": 5, "adverbs": 2, "ambiguity": 0.25
    }  # fmt: skip
    assert draw(Language(**language.options), 50) == draw(language, 50)
    assert [len(getattr(language.lexicon, name)) for name in ("nouns", "verbs", "adjectives", "adverbs")] == [
        9,
        3,
        5,
        2,
    ]


@pytest.mark.parametrize("ambiguity", [0.0, 0.5, 1.0])
def test_the_share_of_ambiguous_sentences_is_as_asked(ambiguity: float):
    language = Language(ambiguity=ambiguity)
    sources = draw(language, 1000)
    share = sum(map(language.is_ambiguous, sources)) / len(sources)
    assert share == pytest.approx(ambiguity, abs=0 if ambiguity in (0, 1) else 0.05)


def test_particle_and_ambiguity_go_together():
    language = Language()
    for source in draw(language, 500):
        marked = source.split()[-1] in language.lexicon.markers
        number = len(set(language.translations(source)))
        assert number == (1 if marked else 2)
        assert language.is_ambiguous(source) != marked


def test_lengths_stay_in_bounds_and_reach_them():
    lengths = {len(source.split()) for source in draw(Language(), 3000)}
    assert (min(lengths), max(lengths)) == (SHORTEST, LONGEST)


def test_translations_are_among_the_spellings():
    language = Language()
    for source in draw(language, 100):
        for translation in language.translations(source):
            assert all(
                word in among for word, among in zip(translation.split(), language.spellings(source), strict=True)
            )


@pytest.mark.parametrize("name", ["nouns", "verbs", "adjectives", "adverbs"])
def test_too_few_words_are_refused(name: str):
    with pytest.raises(UserError, match=f"at least 2 {name}, not 1"):
        Language(**{name: 1})


@pytest.mark.parametrize("ambiguity", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_and_1_is_refused(ambiguity: float):
    with pytest.raises(UserError, match="between 0 and 1"):
        Language(ambiguity=ambiguity)


def test_the_smallest_language_works():
    language = Language(nouns=2, verbs=2, adjectives=2, adverbs=2)
    assert all(language.translations(source) for source in draw(language, 200))
