"""Whether fairseq's binarised files are whole, before fairseq maps them into memory."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairseq_diffusion.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
HEADER = np.dtype([("version", "<u8"), ("kind", "u1"), ("sentences", "<u8")])
HEAD = len(MAGIC) + HEADER.itemsize
TYPES = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2", 9: "u4", 10: "u8"}  # of tokens, by fairseq's numbers
OTHERS = (b"TNTIDX\x00\x00", b"HUFFIDX\x00")  # of fairseq's formats without a memory map
AGAIN = "binarise it again with fairseq-preprocess, or copy it again"


class Index(NamedTuple):
    """What an index says of the file beside it."""

    kind: np.dtype
    sentences: int
    tokens: int


def check_parallel(folder: Path, split: str, words: dict[str, int]) -> None:
    """Both sides of a split, and of its further parts (train1, ...), are whole and have as many sentences; `words` are
    the sizes of the dictionaries by language."""
    one, other = re.escape(next(iter(words))), re.escape(next(reversed(words)))
    files = re.compile(rf"({re.escape(split)}\d*\.(?:{one}-{other}|{other}-{one}))\.({one}|{other})\.idx")
    parts: dict[str, dict[str, int]] = defaultdict(dict)
    for match in filter(None, (files.fullmatch(path.name) for path in sorted(folder.glob(f"{split}*.idx")))):
        found = check_binarised(folder / f"{match[1]}.{match[2]}", words[match[2]])
        if found is not None:
            parts[match[1]][match[2]] = found
    for part, sentences in parts.items():
        if len(set(sentences.values())) > 1:
            raise UserError(
                f"{folder} has {' and '.join(f'{n} {language}' for language, n in sentences.items())} sentences in "
                f"{part}; binarise both sides of the same text with fairseq-preprocess"
            )


def check_binarised(prefix: Path, words: int) -> int | None:
    """`prefix`.idx and .bin are of the sizes that they say, and no token is beyond a dictionary of so many `words`; the
    number of sentences.

    Data that fairseq has no memory map of (--dataset-impl) are left to fairseq: None.
    """
    index, tokens = (prefix.with_name(f"{prefix.name}.{end}") for end in ("idx", "bin"))
    found = read_index(index)
    if found is None:
        return None
    wanted, size = found.tokens * found.kind.itemsize, tokens.stat().st_size if tokens.is_file() else 0
    if size != wanted:
        raise UserError(
            f"{tokens} has {size} bytes, but {index.name} beside it is of {found.sentences} sentences in {wanted}, so "
            f"it is cut off or of another run; {AGAIN}"
        )
    unsigned = found.kind.str.replace("i", "u")  # a number below 0 is a large one, too
    largest = int(np.memmap(tokens, unsigned, mode="r").max()) if size else 0
    if largest >= words:
        raise UserError(
            f"{tokens} has a token of number {largest}, but its dictionary has {words} entries, so the dictionary was "
            f"changed after the data; take the one that it was binarised with, or {AGAIN}"
        )
    return found.sentences


def read_index(path: Path) -> Index | None:
    """The head and the lengths of an index; None for one of another form."""
    data = path.read_bytes()
    if data[: len(MAGIC)] != MAGIC:
        if data[:8] in OTHERS:
            return None
        raise UserError(f"{path} is empty, damaged or no index of fairseq's ({len(data)} bytes); {AGAIN}")
    version, code, sentences = np.frombuffer(data[len(MAGIC) : HEAD], HEADER)[0] if len(data) >= HEAD else (0, 0, 0)
    if version != 1 or code not in TYPES or len(data) != HEAD + int(sentences) * 12:  # a length and a place for each
        raise UserError(f"{path} is cut off or damaged ({len(data)} bytes); {AGAIN}")
    kind, sentences = np.dtype(TYPES[code]), int(sentences)
    lengths = np.frombuffer(data, "<i4", sentences, HEAD).astype(np.int64)
    places = np.frombuffer(data, "<i8", sentences, HEAD + 4 * sentences)
    if (lengths < 0).any() or (places != (lengths.cumsum() - lengths) * kind.itemsize).any():
        raise UserError(f"{path} is damaged: the places of its sentences do not follow from their lengths; {AGAIN}")
    return Index(kind, sentences, int(lengths.sum()))
