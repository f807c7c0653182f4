from __future__ import annotations

import random

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.toy.grammar import parse, spellings
from fairseq_diffusion.toy.lexicon import FORMAL, INFORMAL, Entry, Lexicon

FORMAL_WORD, INFORMAL_WORD = "please", "mate"


@pytest.fixture
def lexicon() -> Lexicon:
    """A lexicon of words one can read; in capitals where a word has two forms."""

    def table(*entries: Entry) -> dict[str, Entry]:
        return {entry.source: entry for entry in entries}

    words = Lexicon(random.Random(0), nouns=2, verbs=2, adjectives=2, adverbs=2)
    words.markers = {FORMAL_WORD: FORMAL, INFORMAL_WORD: INFORMAL}
    words.determiners = table(Entry("the", ("DER", "DER")))
    words.prepositions = table(Entry("near", ("BEI", "BEI")))
    words.nouns = table(
        Entry("dog", ("HUND", "HUND"), 0), Entry("cat", ("KATZ", "MIEZ"), 1), Entry("house", ("HAUS", "HAUS"), 2)
    )
    words.verbs = table(Entry("see", ("SEH", "SEH")), Entry("eat", ("SPEIS", "FRESS")))
    words.adjectives = table(Entry("big", ("GROSS", "GROSS")), Entry("old", ("BETAGT", "ALT")))
    words.adverbs = table(Entry("today", ("HEUTE", "HEUTE")))
    return words


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("dog see house", "HUND HAUS SEHit"),  # the verb comes last
        ("dogs see house", "HUNDi HAUS SEHint"),  # and agrees with the subject in number
        ("house see dogs", "HAUS HUNDi SEHol"),  # and class, not with the object
        ("houses see dog", "HAUSeth HUND SEHonol"),
        ("the big dog see the big house", "DERus HUND GROSSus DERon HAUS GROSSon SEHit"),  # concord by class
        ("the big dogs see the big houses", "DERir HUNDi GROSSir DERoi HAUSeth GROSSoi SEHint"),  # and number
        ("dog house see house", "HUNDsHAUS HAUS SEHol"),  # a compound agrees by its head
        ("house dogs see house", "HAUSHUNDi HAUS SEHint"),  # the link depends on its first noun
        ("today dog see house", "HUND HAUS HEUTE SEHit"),  # the adverb stands before the verb
        ("dog see house near the dogs", "DERir HUNDi BEI HUND HAUS SEHit"),  # the place first, then its postposition
    ],
)
def test_a_neutral_sentence_has_one_translation(lexicon: Lexicon, source: str, target: str):
    assert parse(source, lexicon).translations() == [target]


def test_adjectives_follow_in_mirrored_order(lexicon: Lexicon):
    assert parse(f"big old dog see house {INFORMAL_WORD}", lexicon).translations() == ["HUND ALTus GROSSus HAUS SEHit"]


def test_register_agrees_across_the_sentence(lexicon: Lexicon):
    source = "old cat house eat cats"
    formal, informal = "KATZenHAUS BETAGTon KATZa SPEISol", "MIEZenHAUS ALTon MIEZa FRESSol"
    assert parse(source, lexicon).translations() == [formal, informal]
    assert parse(f"{source} {FORMAL_WORD}", lexicon).translations() == [formal]
    assert parse(f"{source} {INFORMAL_WORD}", lexicon).translations() == [informal]


def test_spellings_mix_registers_even_inside_a_compound(lexicon: Lexicon):
    subject, *_ = parse("cat cats see house", lexicon).target_words()
    assert spellings(subject) == {"KATZenKATZa", "KATZenMIEZa", "MIEZenKATZa", "MIEZenMIEZa"}


@pytest.mark.parametrize(
    "source",
    [
        "today the big old cat dogs eat big houses near the old dog please",
        "dog see house",
    ],
)
def test_parsing_and_writing_the_source_are_inverse(lexicon: Lexicon, source: str):
    assert " ".join(parse(source, lexicon).source_words(lexicon)) == source


@pytest.mark.parametrize(
    "source",
    ["", "dog", "dog see", "see dog house", "big the dog see house", "dogs house see house", "dog see near dog"],
)
def test_sentences_out_of_order_are_refused(lexicon: Lexicon, source: str):
    with pytest.raises(UserError, match="not a sentence of this toy language"):
        parse(source, lexicon)


@pytest.mark.parametrize("word", ["unicorn", "sees", "s"])
def test_unknown_words_are_refused(lexicon: Lexicon, word: str):
    with pytest.raises(UserError, match=f"'{word}' is not a source word"):
        parse(f"dog see {word}", lexicon)
