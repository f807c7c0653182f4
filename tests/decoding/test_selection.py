"""Rankings of a sentence's candidates."""

from __future__ import annotations

import pytest

from fairseq_diffusion.decoding.selection import SELECTIONS, Candidate


def candidate(text: str, log_p: float, length_rank: int = 0) -> Candidate:
    return Candidate([ord(letter) for letter in text], [log_p, 3 * log_p], length_rank)


ODD = candidate("xyz", -0.1, 0)  # the model's favourite, like no other
LEFT = candidate("abcd", -0.4, 0)
MIDDLE = candidate("abcde", -0.3, 1)
RIGHT = candidate("bcde", -0.2, 1)
ALL = [ODD, LEFT, MIDDLE, RIGHT]


def test_score_is_a_mean():
    assert ODD.score == pytest.approx(-0.2)


def test_by_score():
    assert SELECTIONS["score"](ALL) == [0, 3, 2, 1]


def test_by_score_keeps_the_order_of_ties():
    assert SELECTIONS["score"]([LEFT, LEFT, ODD]) == [2, 0, 1]


def test_by_mbr_the_outlier_is_last():
    assert SELECTIONS["mbr"](ALL)[-1] == 0


def test_two_levels_name_each_length_once_before_any_twice():
    order = SELECTIONS["mbr_two_level"](ALL)
    assert sorted(order) == [0, 1, 2, 3]
    assert {ALL[i].length_rank for i in order[:2]} == {0, 1}


def test_two_levels_differ_from_one():
    """Copies outvote the rest within their length, but that length has one voice."""
    crowd = [candidate("abab", -1, 0)] * 5
    others = [candidate("cdef", -1, 1), candidate("cdeg", -1, 2), candidate("cdeh", -1, 3)]
    assert SELECTIONS["mbr"]([*crowd, *others])[0] == 0
    assert SELECTIONS["mbr_two_level"]([*crowd, *others])[0] >= 5


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_lone_candidate(name: str):
    assert SELECTIONS[name]([ODD]) == [0]


@pytest.mark.parametrize("name", SELECTIONS)
def test_empty_translations_can_be_ranked(name: str):
    assert sorted(SELECTIONS[name]([candidate("", -1), candidate("ab", -2), candidate("", -3)])) == [0, 1, 2]
