"""Files of durations: read as they were written, and of no other data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.durations import Durations, data_sha256, read_durations, token_files, write_durations

ROWS: list[list[int]] = [[0, 2, 1, 0], [], [1, 1], [], [0, 300, 0]]
SOURCES, TARGETS = np.array([3, 9, 1, 2, 2]), np.array([4, 9, 3, 1, 301])
SUM = "0123456789abcdef" * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_durations(tmp_path / "train.durations", ROWS, SUM)
    return tmp_path / "train.durations"


def test_what_is_written_is_read(file: Path):
    found = read_durations(file, SUM)
    assert (
        [found[i].tolist() for i in range(len(found))]
        == ROWS
        == [row.tolist() for row in map(Durations.of(ROWS).__getitem__, range(5))]
    )
    found.check(file, SOURCES, TARGETS)
    assert [row.name for row in file.parent.iterdir()] == [file.name]


def test_none_of_no_sentences_and_of_none_known(tmp_path: Path):
    for rows in ([], [[], []]):
        write_durations(tmp_path / "x", rows, SUM)
        found = read_durations(tmp_path / "x", SUM)
        assert [found[i].tolist() for i in range(len(found))] == rows
        found.check(tmp_path / "x", np.arange(len(rows)), np.arange(len(rows)))


def test_some_may_be_left_out():
    found = Durations.of(ROWS).without(np.array([True, False, False, False, True]))
    assert [found[i].tolist() for i in range(5)] == [[], [], [1, 1], [], []]


@pytest.mark.parametrize(
    "sources, targets, words",
    [
        (SOURCES[:4], TARGETS[:4], "is of 5 sentences, but there are 4 here"),
        (SOURCES + 1, TARGETS, "4 durations with the sum 3 for sentence 0 .* source has 5 tokens"),
        (SOURCES, TARGETS - np.array([0, 0, 0, 0, 1]), "sum 300 for sentence 4 .* target 299 words"),
        (SOURCES, TARGETS - np.array([0, 0, 1, 0, 0]), "sum 2 for sentence 2 .* target 1 words"),
    ],
)
def test_other_sentences_are_refused(file: Path, sources: np.ndarray, targets: np.ndarray, words: str):
    with pytest.raises(UserError, match=words):
        read_durations(file, SUM).check(file, sources, targets)


@pytest.mark.parametrize(
    "old, new, words",
    [
        (SUM, SUM[::-1], "is of other data"),
        ("# durations", "# lengths", "does not begin as a file of durations does"),
        ("0 2 1 0", "0 2 one 0", "cannot be read behind line 1 "),
        ("0 300 0", "0 -300 0", "damaged: it has a number below 0"),
        ("0 300 0", "0 300000 0", "cannot be read behind line 5 "),
        ("0 300 0\n", "", "damaged: it has 4 lines, but is of 5"),
        ("0 300 0\n", "0 300 0\n1\n", "damaged: it has 6 lines"),
    ],
)
def test_damage_is_a_sentence(file: Path, old: str, new: str, words: str):
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=f"{words}.*fairseq-diffusion durations"):
        read_durations(file, SUM)


def test_the_sum_is_of_both_sides_and_of_the_parts_that_are_read(tmp_path: Path):
    names = ["train.a-b.a.bin", "train.a-b.b.bin", "train1.b-a.a.bin", "train1.b-a.b.bin", "train3.a-b.a.bin"]
    for name in [*names, "valid.a-b.a.bin", "train3.a-b.b.bin"]:
        (tmp_path / name).write_text(name)
    found = [path.name for path in token_files(tmp_path, "train", ("a", "b"), parts=True)]
    assert found == names[:4]  # as fairseq, which stops before the first that is missing
    sums = {data_sha256(tmp_path, "train", ("a", "b"), parts) for parts in (True, False)}
    for name in names[1:4:2]:
        (tmp_path / name).write_text("other")
        sums.add(data_sha256(tmp_path, "train", ("a", "b"), parts=True))
    assert len(sums) == 4
