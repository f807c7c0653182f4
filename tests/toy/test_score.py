from __future__ import annotations

import random

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.language import Language
from fairseq_diffusion.toy.score import corpus_bleu, score


def draw(ambiguity: float = 0.5, number: int = 60) -> tuple[Language, list[str], list[str]]:
    language, rng = Language(ambiguity=ambiguity), random.Random(5)
    sources = [language.sample(rng) for _ in range(number)]
    return language, sources, [rng.choice(language.translations(source)) for source in sources]


def other_register(language: Language, source: str, reference: str) -> str:
    return next((other for other in language.translations(source) if other != reference), reference)


def mix(translations: list[str]) -> str:
    """The formal translation with its first two-form word exchanged for the informal one."""
    formal, informal = (translation.split() for translation in translations)
    first = next(i for i, (one, other) in enumerate(zip(formal, informal)) if one != other)
    return " ".join([*formal[:first], informal[first], *formal[first + 1 :]])


def two_choices(language: Language, source: str) -> int:
    formal, informal = (translation.split() for translation in language.translations(source))
    return sum(one != other for one, other in zip(formal, informal))


def test_references_are_perfect():
    language, sources, references = draw()
    result = score(language, sources, references, references)
    assert (result.valid, result.mixed, result.exact) == (1, 0, 1)
    assert result.bleu == pytest.approx(100) and result.bleu_single == pytest.approx(100)
    assert result.bleu_unambiguous == pytest.approx(100)
    assert result.sentences == 60 and result.ambiguous == sum(map(language.is_ambiguous, sources))
    assert result.signature.startswith("nrefs:var|case:mixed")


def test_the_other_valid_translation_is_as_good():
    language, sources, references = draw()
    outputs = [other_register(language, *pair) for pair in zip(sources, references)]
    result = score(language, sources, outputs, references)
    assert (result.valid, result.mixed, result.exact) == (1, 0, 1)
    assert result.bleu == pytest.approx(100)
    assert result.bleu_single < 90


def test_mixed_registers_are_caught():
    language, sources, references = draw(ambiguity=1.0)
    pairs = [pair for pair in zip(sources, references) if two_choices(language, pair[0]) >= 2]
    sources, references = (list(side) for side in zip(*pairs))
    outputs = [mix(language.translations(source)) for source in sources]
    result = score(language, sources, outputs, references)
    assert (result.valid, result.mixed) == (0, 1)
    half = score(language, sources, [*outputs[:10], *references[10:]], references)
    assert half.valid == pytest.approx(1 - 10 / len(sources)) and half.mixed == pytest.approx(10 / len(sources))


def test_shuffled_outputs_are_neither_valid_nor_mixed():
    language, sources, references = draw()
    result = score(language, sources, references[1:] + references[:1], references)
    assert (result.valid, result.mixed, result.exact) == (0, 0, 0)
    assert result.bleu < 20


def test_wrong_words_empty_outputs_and_swapped_words_are_not_mixed():
    language, sources, references = draw(ambiguity=1.0, number=3)
    outputs = ["", references[1] + " extra", " ".join(reversed(references[2].split()))]
    result = score(language, sources, outputs, references)
    assert (result.valid, result.mixed) == (0, 0)


def test_the_wrong_register_of_a_marked_sentence_is_neither_exact_nor_mixed():
    language, sources, references = draw(ambiguity=1.0, number=10)
    particles = {register: word for word, register in language.lexicon.markers.items()}
    marked = [f"{source} {particles[0]}" for source in sources]
    informal = [language.translations(source)[1] for source in sources]
    result = score(language, marked, informal, references)
    assert (result.valid, result.exact, result.mixed) == (0, 0, None)


@pytest.mark.parametrize(("ambiguity", "empty"), [(0.0, {"mixed"}), (1.0, {"exact", "bleu_unambiguous"})])
def test_a_share_of_nothing_is_none(ambiguity: float, empty: set[str]):
    language, sources, references = draw(ambiguity, number=5)
    result = score(language, sources, references, references)
    assert {name for name in ("mixed", "exact", "bleu_unambiguous") if getattr(result, name) is None} == empty


def test_spaces_do_not_matter():
    language, sources, references = draw(number=5)
    assert score(language, sources, [f"  {r.replace(' ', '  ')} " for r in references], references).valid == 1


def test_bleu_takes_any_number_of_references():
    alone, signature = corpus_bleu(["a b c d e", "f g h i j"], [["a b c d e"], ["f g h i j"]])
    padded, variable = corpus_bleu(["a b c d e", "f g h i j"], [["a b c d e", "z z z z"], ["f g h i j"]])
    assert alone == pytest.approx(100) and padded == pytest.approx(100)
    assert signature.startswith("nrefs:1|") and variable.startswith("nrefs:var|")


def test_other_counts_are_refused():
    language, sources, references = draw(number=5)
    with pytest.raises(UserError, match="4 translations for 5 source sentences and 5 references"):
        score(language, sources, references[:4], references)
    with pytest.raises(UserError, match="0 translations for 0"):
        score(language, [], [], [])
