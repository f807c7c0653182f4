"""Whether fairseq's binarised files are whole, before fairseq maps them into memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairseq_diffusion.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
HEAD = len(MAGIC) + 8 + 1 + 8  # magic, version, type of the numbers, sentences
TYPES = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2", 9: "u4", 10: "u8"}  # of tokens, by fairseq's numbers
AGAIN = "binarise it again with fairseq-preprocess, or copy it again"


class Index(NamedTuple):
    """What an index says of the file beside it."""

    kind: np.dtype
    sentences: int
    tokens: int


def check_binarised(prefix: Path, words: int) -> None:
    """`prefix`.idx and .bin are of the sizes that they say, and no token is beyond a dictionary of so many `words`.

    Data that fairseq has no memory map of (--dataset-impl) are left to fairseq.
    """
    index, tokens = (prefix.with_name(f"{prefix.name}.{end}") for end in ("idx", "bin"))
    found = read_index(index)
    if found is None:
        return
    wanted, size = found.tokens * found.kind.itemsize, tokens.stat().st_size if tokens.is_file() else 0
    if size != wanted:
        raise UserError(
            f"{tokens} has {size} bytes, but {index.name} beside it is of {found.sentences} sentences in {wanted}, so "
            f"it is cut off or of another run; {AGAIN}"
        )
    largest = int(np.memmap(tokens, found.kind, mode="r").max()) if size else 0
    if largest >= words:
        raise UserError(
            f"{tokens} has a token of number {largest}, but its dictionary has {words} entries, so the dictionary was "
            f"changed after the data; take the one that it was binarised with, or {AGAIN}"
        )


def read_index(path: Path) -> Index | None:
    """The head and the lengths of an index; None for one of another form."""
    data = path.read_bytes()
    if data[: len(MAGIC)] != MAGIC:
        if len(data) < HEAD:
            raise UserError(f"{path} is empty or cut off ({len(data)} bytes); {AGAIN}")
        return None
    sentences = int(np.frombuffer(data, "<u8", 1, HEAD - 8)[0]) if len(data) >= HEAD else -1
    if len(data) != HEAD + sentences * 12 or data[HEAD - 9] not in TYPES:  # a length and a place for each
        raise UserError(f"{path} is cut off or damaged ({len(data)} bytes); {AGAIN}")
    lengths = np.frombuffer(data, "<i4", sentences, HEAD)
    return Index(np.dtype(TYPES[data[HEAD - 9]]), sentences, int(lengths.sum(dtype=np.int64)))
