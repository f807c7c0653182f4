from __future__ import annotations

import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import Hypothesis, Sentence, is_generated, read, sentences

PRINTED = """2026-01-01 | INFO | loading
S-3\ta b
T-3\tA B
H-3\t-0.5\tA B@@ C
D-3\t-0.5\tA BC
P-3\t-0.25 -0.5 -0.75
E-3_0\tx y
E-3_1\tA y
H-3\t-1.5\tA
P-3\t-1.0 -2.0
E-3_0\tz
S-0\t
H-0\t-2\t
P-0\t-2
Generate test with beam=1: BLEU4 = 3
| H-9 is no line of a sentence
"""


def test_sentences_come_in_the_order_printed_with_all_that_is_said_of_them():
    first, second = sentences(PRINTED.splitlines(keepends=True))
    best = Hypothesis(-0.5, "A B@@ C", "A BC", [-0.25, -0.5, -0.75], {0: "x y", 1: "A y"})
    assert first == Sentence(3, "a b", "A B", [best, Hypothesis(-1.5, "A", None, [-1.0, -2.0], {0: "z"})])
    assert second == Sentence(0, "", None, [Hypothesis(-2.0, "", None, [-2.0])])


def test_only_lines_of_sentences_count():
    assert is_generated("S-12\ttext\r\n") and is_generated("E-1_2\t")
    assert not any(map(is_generated, ("S-12 text", "| H-9\t", "X-1\ta", "H-\ta", "")))


@pytest.mark.parametrize("line", ["H-1\t", "H-1\t-", "H-1\t-0.2", "P-1\t-0.1 -"])
def test_a_line_that_is_cut_off_is_no_translation(line: str):
    with pytest.raises(UserError, match="cut off.*was the decoding stopped"):
        list(sentences(["S-1\ta", "H-1\t-0.5\tA", line]))


def test_line_ends_within_a_sentence_are_its_own(tmp_path):
    (tmp_path / "log").write_text("S-0\ta\u2028b\x85c\n", encoding="utf-8")
    assert read(tmp_path / "log")[0].source == "a\u2028b\x85c"


def test_a_sentence_printed_twice_is_refused(tmp_path):
    (tmp_path / "log").write_text("S-0\ta\nS-1\tb\nS-0\ta\n")
    with pytest.raises(UserError, match="sentence 0 twice"):
        read(tmp_path / "log")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot read .*: No such file"):
        read(tmp_path / "log")


def test_a_file_in_another_encoding(tmp_path):
    (tmp_path / "log").write_bytes("S-0\tgrün\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        read(tmp_path / "log")
