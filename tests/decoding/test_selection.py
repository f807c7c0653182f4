"""Chains of stages over a batch's candidates, against a loop over sentences, copies and pairs."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
import torch
from fairseq.data import Dictionary
from sacrebleu.metrics import BLEU

from fairseq_diffusion.decoding import selection
from fairseq_diffusion.decoding.selection import SELECTIONS, Selector
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.translators.batch import Candidates

METRIC = BLEU(effective_order=True, tokenize="none")


class One(NamedTuple):
    text: str  # a letter is a token
    score: float = 0.0
    length_rank: int = 0
    length_log_p: float = 0.0
    alive: bool = True

    @property
    def joint(self) -> float:
        return self.score + self.length_log_p / (len(self.text) + 1)


class Stub:
    """A teacher, or the model's likelihood, that prefers high letters, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[list[int]]] = []

    def scores(self, net_input: Any, hypotheses: list[list[list[int]]]) -> list[list[float]]:
        self.asked += hypotheses
        return [[self.score(tokens) for tokens in own] for own in hypotheses]

    @staticmethod
    def score(tokens: list[int]) -> float:
        return sum(tokens) / (len(tokens) + 1) + 0.01 * sum(t * i for i, t in enumerate(tokens))


def batch(*sentences: list[One]) -> Candidates:
    longest = max(len(one.text) for sentence in sentences for one in sentence)
    tokens = [[[*map(ord, one.text), *[-1] * (longest - len(one.text))] for one in sentence] for sentence in sentences]
    sizes, ranks = (
        torch.tensor([[of(one) for one in sentence] for sentence in sentences])
        for of in (lambda one: len(one.text), lambda one: one.length_rank)
    )
    scores, joint = (
        torch.tensor([[of(one) for one in sentence] for sentence in sentences], dtype=torch.double)
        for of in (lambda one: one.score, lambda one: one.joint)
    )
    alive = torch.tensor([[one.alive for one in sentence] for sentence in sentences])
    return Candidates(
        tokens=torch.tensor(tokens, dtype=torch.long).view(*sizes.shape, longest),
        sizes=sizes,
        log_p=torch.zeros(*sizes.shape, longest + 1),
        scores=scores,
        joint=joint,
        length_rank=ranks,
        calls=torch.ones_like(sizes),
        alive=alive,
    )


def choose(spec: str, *sentences: list[One], **more: Any) -> list[list[int]]:
    if "rescore" in spec:
        more.setdefault("teacher", Stub())
    return Selector(spec, **{"likelihoods": Stub(), **more})(batch(*sentences), {})


def random_sentence(rng: random.Random, count: int = 9) -> list[One]:
    """Candidates with copies, of three lengths, and no two model scores alike."""
    fresh = ["".join(rng.choices("abcd", k=rng.randint(0, 6))) for _ in range(count)]
    scores = rng.sample(range(100), count)
    likely = [-rng.random() * 20 for _ in range(3)]
    return [One(rng.choice(fresh[:6]), -score / 10, i // 3, likely[i // 3]) for i, score in enumerate(scores)]


# -- the oracle: one sentence, one candidate at a time ----------------------------------------------------------------


def loop_merit(stage: str, text: str, left: list[One]) -> float:
    copies = [one for one in left if one.text == text]
    if stage == "score":
        return max(one.score for one in copies)
    if stage == "joint":
        return max(one.joint for one in copies)
    if stage in ("rescore", "likelihood"):
        return Stub.score(list(map(ord, text)))
    others = list(left)
    others.remove(copies[0])
    utilities = [METRIC.sentence_score(" ".join(text), [" ".join(other.text)]).score for other in others]
    return round(sum(utilities) / max(len(utilities), 1), 9)


def loop(spec: str, sentence: list[One]) -> list[int]:
    """Places of different translations, best first; ties go to the favourite of the stage before, or of the model."""
    left, behind = sentence, []
    kept = list(dict.fromkeys(one.text for one in sorted(sentence, key=lambda one: -one.score)))
    for step in spec.split(","):
        stage, _, keep = step.partition(":")
        texts = sorted(kept, key=lambda text: -loop_merit(stage, text, left))
        kept = texts[: int(keep or len(texts))]
        behind = texts[len(kept) :] + behind
        left = [one for one in left if one.text in kept]
    best = {one.text: i for i, one in sorted(enumerate(sentence), key=lambda pair: pair[1].score)}
    return [best[text] for text in kept + behind]


CHAINS = [
    "joint",
    "joint:3,mbr",
    "score",
    "mbr",
    "rescore",
    "mbr:3,rescore",
    "likelihood",
    "score:3,likelihood",
    "score:4,mbr",
    "score:4,mbr:2,rescore",
    "rescore:3,score:2,mbr:1",
]


@pytest.mark.parametrize("spec", CHAINS)
def test_chains_equal_a_loop(spec: str) -> None:
    rng = random.Random(1)
    for _ in range(15):
        sentences = [random_sentence(rng) for _ in range(4)]
        assert choose(spec, *sentences) == [loop(spec, sentence) for sentence in sentences]


@pytest.mark.parametrize("spec", [*CHAINS, "mbr_two_level", "mbr_two_level:2,score", "score:4,mbr_two_level"])
def test_a_sentence_is_ranked_the_same_in_any_batch_and_order(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    sentences = [random_sentence(rng) for _ in range(6)]
    together = choose(spec, *sentences)
    assert together == [choose(spec, sentence)[0] for sentence in sentences]
    for sentence, order in zip(sentences, together):
        places = rng.sample(range(len(sentence)), len(sentence))
        assert [places[i] for i in choose(spec, [sentence[i] for i in places])[0]] == order
    monkeypatch.setattr(selection, "ENTRIES", 1)
    assert choose(spec, *sentences) == together


@pytest.mark.parametrize("spec", [*SELECTIONS, "mbr:2,score", "mbr_two_level:1,rescore"])
def test_every_translation_is_listed_once_by_its_best_copy(spec: str) -> None:
    rng = random.Random(3)
    for _ in range(20):
        sentence = random_sentence(rng)
        texts = [sentence[i].text for i in choose(spec, sentence)[0]]
        assert sorted(texts) == sorted({one.text for one in sentence})
        places = sorted(range(len(sentence)), key=lambda i: sentence[i].score)
        best = {sentence[i].text: i for i in places}  # the last one stays
        assert sorted(choose(spec, sentence)[0]) == sorted(best.values())


def test_copies_are_votes() -> None:
    crowd, odd = [One("vwxyz", -3), One("vwxyz", -2)], One("abcde", -1)
    assert choose("mbr", [odd, *crowd]) == [[2, 0]]
    assert choose("score", [odd, *crowd]) == [[0, 2]]
    assert choose("score:2,mbr", [odd, *crowd]) == [[2, 0]]  # a stage keeps translations, with all their votes


def test_what_a_stage_drops_no_longer_votes() -> None:
    crowd = [One(text, -9) for text in ("abcdx", "abcdy", "abcdz")]
    left = [One("abcde", -1), One("klmno", 0), One("klmnp", -2)]
    assert choose("mbr", [*crowd, *left])[0][-1] in (4, 5)
    assert choose("score:3,mbr", [*crowd, *left])[0][:3] == [4, 5, 3]


@pytest.mark.parametrize("spec", ["score", "joint", "mbr", "mbr_two_level", "rescore", "mbr:2,score"])
def test_candidates_that_were_dropped_are_neither_listed_nor_counted(spec: str) -> None:
    """A batch with them is ranked as one in which they never were."""
    rng = random.Random(4)
    for _ in range(10):
        sentences = [random_sentence(rng) for _ in range(3)]
        alive = [sorted(rng.sample(range(9), 5)) for _ in sentences]
        marked = [[one._replace(alive=i in kept) for i, one in enumerate(own)] for own, kept in zip(sentences, alive)]
        without = choose(spec, *([own[i] for i in kept] for own, kept in zip(sentences, alive)))
        assert choose(spec, *marked) == [[kept[i] for i in order] for kept, order in zip(alive, without)]


def test_ties_go_to_the_models_favourite() -> None:
    assert choose("mbr", [One("ab", -3), One("cd", -1), One("ef", -2)]) == [[1, 2, 0]]
    assert choose("score", [One("ab"), One("cd")]) == [[0, 1]]


def test_two_levels_give_each_length_one_voice() -> None:
    crowd = [One("abab", -1, 0)] * 5
    others = [One("cdef", -1, 1), One("cdeg", -1, 2), One("cdeh", -1, 3)]
    assert choose("mbr", [*crowd, *others])[0][0] == 0
    assert choose("mbr_two_level", [*crowd, *others])[0][0] >= 5


def test_two_levels_name_each_length_once_before_any_twice() -> None:
    sentence = [One("xyz", -1, 0), One("abcd", -4, 0), One("abcde", -3, 1), One("bcde", -2, 1)]
    order = choose("mbr_two_level", sentence)[0]
    assert sorted(order) == [0, 1, 2, 3] and {sentence[i].length_rank for i in order[:2]} == {0, 1}


def test_the_teacher_is_asked_once_for_each_translation_that_is_left() -> None:
    sentences = [[One("ab", -1), One("ab", -2), One("cd", -3), One("", -4)], [One("x", -1)] * 4]
    teacher = Stub()
    choose("score:2,rescore", *sentences, teacher=teacher)
    assert teacher.asked == [[[97, 98], [99, 100]], [[120]]]


@pytest.mark.parametrize("spec", [*SELECTIONS, "mbr:5,rescore", "score:10,mbr:3,rescore"])
def test_one_candidate_empty_ones_and_batches_of_both(spec: str) -> None:
    empty = [One("")] * 2
    assert choose(spec, [One("abc")]) == [[0]]
    assert choose(spec, empty) == [[0]]
    assert choose(spec, empty, [One("abc"), One("abc", 1)]) == [[0], [1]]
    assert sorted(choose(spec, [One("", -1), One("ab", -2), One("", -3)])[0]) == [0, 1]


# -- utilities and units ----------------------------------------------------------------------------------------------


def pieces() -> Dictionary:
    """Letters stand for pieces: lower case goes on in the next."""
    dictionary = Dictionary()
    for code in range(dictionary.nspecial, 128):
        letter = chr(code)
        dictionary.add_symbol(f"{letter}@@" if letter.islower() else f"<{code}>" if code < 65 else letter)
    return dictionary


def test_words_are_not_pieces() -> None:
    """Half of a word counts with tokens and not with words; the same word cut elsewhere is the same word."""
    sentence = [One("abC", -3), One("abD", -2), One("E", -1)]
    assert choose("mbr", sentence, dictionary=pieces())[0][-1] == 2
    assert choose("mbr", sentence, units="words", dictionary=pieces())[0] == [2, 1, 0]  # nothing in common: ties


def test_chrf_is_of_the_characters_of_words_in_any_units() -> None:
    """Letters in common, and never a token."""
    sentence = [One("xY", -3), One("xyZ", -2), One("W", -1)]
    orders = [choose("mbr", sentence, utility="chrf", units=u, dictionary=pieces()) for u in ("tokens", "words")]
    assert orders[0] == orders[1] and orders[0][0][-1] == 2
    assert choose("mbr", sentence, units="words", dictionary=pieces()) == [[2, 1, 0]]


# -- what a user can get wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("best", "unknown selection 'best'; choose one of: joint, likelihood, mbr, mbr_two_level, rescore, score"),
        ("", "unknown selection ''"),
        ("mbr:5,", "unknown selection ''"),
        ("mbr:5,best", "unknown selection 'best'"),
        ("mbr,score", "stage mbr passes on; write mbr:5"),
        ("mbr:0,score", "keeps '0' candidates"),
        ("mbr:,score", "keeps '' candidates"),
        ("score:two", "keeps 'two' candidates"),
        ("mbr:-1", "keeps '-1' candidates"),
        ("rescore", "last on --path .* --iter-decode-with-external-reranker"),
        ("mbr:5,rescore", "last on --path .* --iter-decode-with-external-reranker"),
    ],
)
def test_a_wrong_chain_is_explained(spec: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Selector(spec)


def test_an_idle_teacher_is_an_error() -> None:
    with pytest.raises(UserError, match="does not use it; pass --selection rescore or mbr:5,rescore"):
        Selector("mbr", teacher=Stub())  # type: ignore[arg-type]
