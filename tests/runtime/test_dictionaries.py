"""A dictionary is read as fairseq reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fairseq.data import Dictionary as Fairseqs

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.export.folder import write_dictionary
from fairseq_diffusion.runtime.dictionary import Dictionary

LINES = ["a 5\n", "<unk> 2 #fairseq:overwrite\n", "b\u00a0c 1\n", "madeupword0000 0\n"]


def test_words_have_fairseqs_numbers(tmp_path: Path):
    path = tmp_path / "dict.txt"
    path.write_text("".join(LINES), encoding="utf-8")
    ours, theirs = Dictionary.read(path), Fairseqs.load(str(path))
    assert ours.words == theirs.symbols
    for text in ("a b", "madeupword0000 a z", "<unk> a", "", "</s>"):
        assert ours.encode(text) == theirs.encode_line(text, add_if_not_exist=False).tolist()


def test_a_dictionary_is_written_as_it_was_read(tmp_path: Path):
    path, copy = tmp_path / "dict.txt", tmp_path / "copy.txt"
    path.write_text("".join(LINES), encoding="utf-8")
    write_dictionary(Fairseqs.load(str(path)), copy)
    assert Fairseqs.load(str(copy)).symbols == Fairseqs.load(str(path)).symbols == Dictionary.read(copy).words


@pytest.mark.parametrize("line", ["a\n", "a x\n", "a 1\na 2\n", "\n"])
def test_other_lines_are_refused(tmp_path: Path, line: str):
    path = tmp_path / "dict.txt"
    path.write_text(line)
    with pytest.raises(UserError, match="is no new word with a number behind it"):
        Dictionary.read(path)
