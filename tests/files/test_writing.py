from __future__ import annotations

from pathlib import Path

import pytest

from fairseq_diffusion.files.writing import atomic_write


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path):
    """As jobs on two hosts may be; the file is one's or the other's, with the rights of any new file."""
    output, other = tmp_path / "output", tmp_path / "other"
    with atomic_write(output) as first, atomic_write(output) as second:
        first.write_text("first")
        second.write_text("second")
    other.write_text("")
    assert output.read_text() == "first" and output.stat().st_mode == other.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [other, output]


def test_a_failure_leaves_what_there_was(tmp_path: Path):
    output = tmp_path / "output"
    output.write_text("earlier")
    with pytest.raises(KeyError), atomic_write(output) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert output.read_text() == "earlier" and list(tmp_path.iterdir()) == [output]
