"""Indexes that contradict themselves, tokens below 0, and two sides of different texts."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Callable

import pytest
from stored_models import DATA

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.binarised import HEAD, MAGIC, check_parallel

WORDS = {"a": 32, "b": 32}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "data"))


def rewritten(path: Path, at: int, form: str, change: Callable[[int], int]) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, change(*struct.unpack_from(form, data, at)))
    path.write_bytes(data)


def test_what_fairseq_wrote_is_whole(folder: Path):
    for split in ("train", "valid", "test"):
        check_parallel(folder, split, WORDS)


@pytest.mark.parametrize(
    "at, form, words",
    [
        (0, "<B", "is empty, damaged or no index"),
        (len(MAGIC), "<Q", "cut off or damaged"),
        (HEAD - 9, "<B", "cut off or damaged|do not follow"),
        (HEAD - 8, "<Q", "cut off or damaged"),
        (HEAD, "<i", "do not follow from their lengths"),
        (HEAD + 8 * 4 + 8, "<q", "do not follow from their lengths"),
    ],
)
def test_an_index_is_compared_with_itself(folder: Path, at: int, form: str, words: str):
    """Its magic, version, type of tokens, number of sentences, a length, a place."""
    rewritten(folder / "test.a-b.a.idx", at, form, lambda number: number + 1)
    with pytest.raises(UserError, match=f"test.a-b.a.idx .*({words})"):
        check_parallel(folder, "test", WORDS)


def test_two_sides_of_different_texts(folder: Path):
    for end in ("bin", "idx"):
        shutil.copy(folder / f"train.a-b.b.{end}", folder / f"test.a-b.b.{end}")
        shutil.copy(folder / f"test.a-b.a.{end}", folder / f"train1.a-b.a.{end}")
        shutil.copy(folder / f"test.a-b.b.{end}", folder / f"train1.a-b.b.{end}")
    for split, part in (("test", "test"), ("train", "train1")):
        with pytest.raises(UserError, match=f"has 8 a and 240 b sentences in {part}.a-b"):
            check_parallel(folder, split, WORDS)


def test_a_token_below_0_is_none_of_the_dictionary(folder: Path):
    index = folder / "test.a-b.a.idx"
    rewritten(index, HEAD - 9, "<B", lambda _: 3)  # tokens have a sign
    rewritten(index.with_suffix(".bin"), 0, "<h", lambda _: -1)
    with pytest.raises(UserError, match="test.a-b.a.bin has a token of number 65535"):
        check_parallel(folder, "test", WORDS)
