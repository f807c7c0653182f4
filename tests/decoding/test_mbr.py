"""Matrix BLEU and the selections built on it, against loops over sacreBLEU."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from fairseq_diffusion.decoding.mbr import (
    bleu_matrix,
    mbr_scores,
    ranking,
    ranking_two_level,
)


def loop_matrix(candidates: list[list[str]], effective_order: bool = True) -> np.ndarray:
    metric = BLEU(effective_order=effective_order, smooth_method="exp", tokenize="none")
    texts = [" ".join(candidate) for candidate in candidates]
    return np.array([[metric.sentence_score(hypothesis, [text]).score for text in texts] for hypothesis in texts])


def loop_scores(candidates: list[list[str]], effective_order: bool = True) -> np.ndarray:
    bleu = loop_matrix(candidates, effective_order)
    size = len(candidates)
    return np.array([sum(bleu[i][j] for j in range(size) if j != i) / max(size - 1, 1) for i in range(size)])


def first_best(scores: np.ndarray) -> int:
    return next(i for i, score in enumerate(scores) if score > max(scores) - 1e-9)


def random_candidates(rng: random.Random, most: int = 8) -> list[list[str]]:
    """Sequences of 0..12 tokens from a handful of words, some of them copies, so that matches and ties abound."""
    words = "abcde"[: rng.randint(1, 5)]
    fresh = [[rng.choice(words) for _ in range(rng.randint(0, 12))] for _ in range(rng.randint(1, most))]
    return fresh + [rng.choice(fresh) for _ in range(rng.randint(0, 3))]


@pytest.mark.parametrize("effective_order", [True, False])
def test_scores_and_choice_equal_a_sacrebleu_loop(effective_order: bool) -> None:
    rng = random.Random(1)
    for _ in range(250):
        candidates = random_candidates(rng)
        wanted = loop_scores(candidates, effective_order)
        assert np.allclose(mbr_scores(candidates, effective_order), wanted, rtol=0, atol=1e-9)
        assert ranking(candidates, effective_order)[0] == first_best(wanted)


@pytest.mark.parametrize("effective_order", [True, False])
def test_matrix_equals_sacrebleu_entry_by_entry(effective_order: bool) -> None:
    rng = random.Random(2)
    for _ in range(50):
        candidates = random_candidates(rng)
        wanted = loop_matrix(candidates, effective_order)
        assert np.allclose(bleu_matrix(candidates, effective_order), wanted, rtol=0, atol=1e-9)


def test_token_ids_give_the_scores_of_words() -> None:
    words = [list("abcab"), list("abc"), list("cabba")]
    ids = [[ord(letter) * 1000 for letter in word] for word in words]
    assert np.array_equal(bleu_matrix(ids), bleu_matrix(words))


def test_copies_count_as_other_candidates() -> None:
    lone, pair = list("abcde"), list("vwxyz")
    assert mbr_scores([lone, pair, pair]) == pytest.approx([0.0, 50.0, 50.0])
    assert ranking([lone, pair, pair]) == [1, 2, 0]


@pytest.mark.parametrize("candidates", [[[]], [[], []], [[], ["a"]]])
def test_empty_candidates_score_zero_and_ties_go_to_the_first(candidates: list[list[str]]) -> None:
    assert not mbr_scores(candidates).any()
    assert ranking(candidates)[0] == 0


def test_ranking_is_by_descending_score() -> None:
    rng = random.Random(3)
    for _ in range(50):
        candidates = random_candidates(rng)
        scores, order = loop_scores(candidates), ranking(candidates)
        assert sorted(order) == list(range(len(candidates)))
        assert all(scores[a] > scores[b] - 1e-9 for a, b in pairwise(order))


def test_two_levels_equal_a_loop_over_groups() -> None:
    rng = random.Random(4)
    for _ in range(100):
        groups = [random_candidates(rng, most=3) for _ in range(rng.randint(1, 4))]
        picks = [first_best(loop_scores(group)) for group in groups]
        group = first_best(loop_scores([group[pick] for group, pick in zip(groups, picks)]))
        assert ranking_two_level(groups)[0] == (group, picks[group])


def test_two_level_ranking_lists_winners_first_and_everyone_once() -> None:
    groups = [[list("abcd"), list("abce"), list("wxyz")], [list("abcf")], [list("mnop"), list("abcg")]]
    order = ranking_two_level(groups)
    assert [group for group, _ in order[:3]] == [0, 1, 2] and order[0] == ranking_two_level(groups)[0]
    assert sorted(order) == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]
    assert order[-1] == (0, 2)


def test_two_levels_can_choose_other_than_flat() -> None:
    """A crowded group of like samples wins flat selection; between lengths only one voice each is heard."""
    crowd = [list("vwxyz")] * 4
    groups = [crowd, [list("abcde")], [list("abcdef")]]
    assert ranking([candidate for group in groups for candidate in group])[0] == 0
    assert ranking_two_level(groups)[0][0] in (1, 2)


@pytest.mark.parametrize("groups", [[], [["a"], []]])
def test_no_candidates_is_an_error(groups: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ranking_two_level(groups)[0]
