"""Tables as text."""

from __future__ import annotations

from fairseq_diffusion.reporting.table import pairs, table


def test_words_of_a_label_stand_below_each_other():
    assert table(["system", "brevity penalty", "n"], [["a long name", "1.000", "2"]], ["system"]).splitlines() == [
        "             brevity",
        "system       penalty  n",
        "-----------  -------  -",
        "a long name    1.000  2",
    ]


def test_labels_in_the_first_of_several_columns():
    assert table(["", "calls 5", "10", ""], [["x", "1", "200", "note"]], [""]).splitlines() == [
        "   calls",
        "       5   10",
        "-  -----  ---  ----",
        "x      1  200  note",
    ]


def test_pairs():
    assert pairs([("a", "one two"), ("long", "")]) == "a     one two\nlong"
