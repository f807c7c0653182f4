"""Matrix BLEU and the merits built on it, against loops over sacreBLEU."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from fairseq_diffusion.decoding import ngrams
from fairseq_diffusion.decoding.mbr import bleu, expected_utility, ranks, two_level_merit
from fairseq_diffusion.decoding.ngrams import Sequences, lexicographic_key, unpadded

Candidate = list[int]
METRIC = BLEU(effective_order=True, smooth_method="exp", tokenize="none")


def sequences(*sentences: list[Candidate]) -> Sequences:
    """Sentences with equally many candidates."""
    items = [token for sentence in sentences for candidate in sentence for token in candidate]
    sizes = [[len(candidate) for candidate in sentence] for sentence in sentences]
    return Sequences(np.array(items, dtype=np.int64), np.array(sizes))


def mbr_scores(candidates: list[Candidate]) -> np.ndarray:
    return expected_utility(bleu(sequences(candidates)), np.ones((1, len(candidates))))[0]


def loop_matrix(candidates: list[Candidate]) -> np.ndarray:
    texts = [" ".join(map(str, candidate)) for candidate in candidates]
    return np.array([[METRIC.sentence_score(hypothesis, [text]).score for text in texts] for hypothesis in texts])


def loop_scores(candidates: list[Candidate]) -> np.ndarray:
    scores, size = loop_matrix(candidates), len(candidates)
    return np.array([sum(scores[i][j] for j in range(size) if j != i) / max(size - 1, 1) for i in range(size)])


def first_best(scores: np.ndarray) -> int:
    return next(i for i, score in enumerate(scores) if score > max(scores) - 1e-9)


def random_candidates(rng: random.Random, most: int = 8) -> list[Candidate]:
    """Sequences of 0..12 tokens from a handful, some of them copies, so that matches and ties abound."""
    tokens = [7, 11, 12, 500, 9999][: rng.randint(1, 5)]
    fresh = [[rng.choice(tokens) for _ in range(rng.randint(0, 12))] for _ in range(rng.randint(1, most))]
    return fresh + [rng.choice(fresh) for _ in range(rng.randint(0, 3))]


def test_scores_and_choice_equal_a_sacrebleu_loop() -> None:
    rng = random.Random(1)
    for _ in range(500):
        candidates = random_candidates(rng)
        wanted, found = loop_scores(candidates), mbr_scores(candidates)
        assert np.allclose(found, wanted, rtol=0, atol=1e-9)
        assert found.argmax() == first_best(wanted)


def test_matrix_equals_sacrebleu_entry_by_entry() -> None:
    rng = random.Random(2)
    for _ in range(50):
        candidates = random_candidates(rng)
        assert np.allclose(bleu(sequences(candidates))[0], loop_matrix(candidates), rtol=0, atol=1e-9)


def batch(rng: random.Random, sentences: int = 6, candidates: int = 5) -> list[list[Candidate]]:
    return [
        [[rng.randint(0, 9) for _ in range(rng.randint(0, 9))] for _ in range(candidates)] for _ in range(sentences)
    ]


def test_a_sentence_scores_the_same_in_any_batch() -> None:
    sentences = batch(random.Random(3))
    together = bleu(sequences(*sentences))
    for sentence, found in zip(sentences, together):
        assert np.array_equal(found, bleu(sequences(sentence))[0])


def test_keys_too_wide_for_64_bits_are_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.random.default_rng(0).choice([0, 3, 2**14, 2**14 + 1], (7, 300))
    order = np.lexsort(columns[::-1])
    assert np.array_equal(np.argsort(lexicographic_key(columns[0], columns[1:]), kind="stable"), order)
    sentences = sequences(*batch(random.Random(4)))
    wanted = bleu(sentences)
    monkeypatch.setattr(ngrams, "WIDEST_KEY", 2000)
    assert np.array_equal(bleu(sentences), wanted)


def test_a_sentences_ngrams_are_numbered_among_themselves() -> None:
    """Or the counts of a batch would grow with its square."""
    sentences = sequences([[1, 2], [2, 1]], [[3, 4], [3, 4]])
    (rows, found), (_, bigrams) = ngrams.numbered_ngrams(sentences, 2)
    wanted = [(row, number) for row in range(4) for number in (0, 1)]
    assert sorted(zip(rows.tolist(), found.tolist())) == wanted and len(bigrams) == 4 and max(bigrams) < 4


def test_padding_is_not_read() -> None:
    tokens = np.array([[[5, 6, -1, -1], [5, 6, 7, -1], [-1, -1, -1, -1]]])
    found = unpadded(tokens, np.array([[2, 3, 0]]))
    assert found.items.tolist() == [5, 6, 5, 6, 7] and found.rows.tolist() == [0, 0, 1, 1, 1]


def test_copies_count_as_other_candidates() -> None:
    lone, pair = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
    assert mbr_scores([lone, pair, pair]) == pytest.approx([0.0, 50.0, 50.0])


def test_votes_equal_writing_the_copies_out() -> None:
    rng = random.Random(5)
    for _ in range(50):
        distinct = [list(candidate) for candidate in {tuple(c) for c in random_candidates(rng)}]
        votes = [rng.randint(1, 4) for _ in distinct]
        copies = [candidate for candidate, n in zip(distinct, votes) for _ in range(n)]
        places = np.cumsum(votes) - votes
        found = expected_utility(bleu(sequences(distinct)), np.array([votes]))[0]
        assert np.allclose(found, loop_scores(copies)[places], rtol=0, atol=1e-9)


@pytest.mark.parametrize("candidates", [[[]], [[], []], [[], [4]], [[4]]])
def test_empty_and_lone_candidates_score_zero(candidates: list[Candidate]) -> None:
    assert not mbr_scores(candidates).any()


# -- two levels -------------------------------------------------------------------------------------------------------


def pool(groups: list[list[Candidate]]) -> tuple[list[Candidate], np.ndarray]:
    """Different candidates of length groups, and their copies in each group [1, U, R]."""
    distinct = [list(c) for c in dict.fromkeys(tuple(c) for group in groups for c in group)]
    return distinct, np.array([[[group.count(candidate) for group in groups] for candidate in distinct]])


def order_of(groups: list[list[Candidate]], matrix: Callable[[list[Candidate]], np.ndarray]) -> list[Candidate]:
    distinct, votes = pool(groups)
    merit = two_level_merit(matrix(distinct), votes)[0]
    return [distinct[i] for i in np.argsort(-merit, kind="stable")]


def ours(candidates: list[Candidate]) -> np.ndarray:
    return bleu(sequences(candidates))


def test_two_levels_equal_a_loop_over_groups() -> None:
    rng = random.Random(6)
    for _ in range(100):
        groups = [random_candidates(rng, most=3) for _ in range(rng.randint(1, 4))]
        winners = [best_in_pool_order(group, groups) for group in groups]
        assert order_of(groups, ours)[0] == winners[first_best(loop_scores(winners))]


def best_in_pool_order(group: list[Candidate], groups: list[list[Candidate]]) -> Candidate:
    """The group's best; of equally good ones that which came first in any group."""
    scores = loop_scores(group)
    best = [candidate for candidate, score in zip(group, scores) if score > max(scores) - 1e-9]
    return next(candidate for candidate in pool(groups)[0] if candidate in best)


def test_two_levels_list_winners_first_and_everyone_once() -> None:
    a, b, odd = [1, 2, 3, 4], [1, 2, 3, 5], [6, 7, 8, 9]
    c, d, e = [1, 2, 3, 10], [11, 12, 13, 14], [1, 2, 3, 15]
    order = order_of([[a, b, odd], [c], [d, e]], ours)
    assert order[:3] == [a, c, d] and order[3:] == [b, e, odd]


def test_a_translation_of_several_lengths_stands_where_it_comes_first() -> None:
    shared, other = [1, 2, 3, 4], [1, 2, 3, 4, 5]
    order = order_of([[shared, other, shared], [other], [shared]], ours)
    assert order == [shared, other]


def test_lengths_without_candidates_have_no_voice() -> None:
    groups = [[[1, 2, 3, 4]], [[6, 7, 8, 9, 10]], [[6, 7, 8, 9]]]
    distinct, votes = pool(groups)
    assert order_of(groups, ours)[0] == groups[2][0]
    for gaps in (1, 5):
        merit = two_level_merit(ours(distinct), np.pad(votes, [(0, 0), (0, 0), (0, gaps)]))[0]
        assert distinct[merit.argmax()] == groups[2][0]


def test_ranks_keep_ties_in_order() -> None:
    assert ranks(np.array([[0.5, 2.0, 0.5, -np.inf, 1.0]])).tolist() == [[2, 0, 3, 4, 1]]
