"""Durations: how many of the target's words stand for each token of the source, for all sentences of a data set.

A file has a line for each sentence: a number for <s>, one for each token of the source, and one for </s>; nothing where
they are not known.  Its first line says of which data they are.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.writing import write_text

HEAD = re.compile(r"# durations of (\d+) sentences, data of sha256 ([0-9a-f]{64})")
AGAIN = "make it again with fairseq-diffusion durations"
READ = 2**20  # bytes at a time


def file_of(folder: Path, split: str) -> Path:
    return folder / f"{split}.durations"


class Durations:
    """Those of N sentences, in the order of their data set."""

    def __init__(self, numbers: np.ndarray, counts: np.ndarray):
        """`numbers` of all sentences one behind the other, and how many each sentence has, [N]."""
        self.numbers, self.counts = numbers, counts
        self.ends = counts.cumsum()

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Durations:
        """A row for each sentence, empty where nothing is known."""
        numbers = np.fromiter((number for row in rows for number in row), np.int16)
        return cls(numbers, np.fromiter(map(len, rows), np.int64))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, sentence: int) -> np.ndarray:
        """Of <s>, the source's tokens and </s>; empty where they are not known."""
        end = self.ends[sentence]
        return self.numbers[end - self.counts[sentence] : end]

    @property
    def sums(self) -> np.ndarray:
        total = np.concatenate([[0], self.numbers.cumsum(dtype=np.int64)])
        return total[self.ends] - total[self.ends - self.counts]

    def check(self, path: Path, sources: np.ndarray, targets: np.ndarray) -> None:
        """They are of sources and targets of these numbers of tokens with the end, [N] each."""
        if len(targets) != len(self):
            raise UserError(
                f"{path} is of {len(self)} sentences, but there are {len(targets)} here (--upsample-primary repeats "
                f"some); {AGAIN}"
            )
        wrong = (self.counts > 0) & ((self.counts != sources + 1) | (self.sums != targets - 1))
        if wrong.any():
            i = int(wrong.argmax())
            raise UserError(
                f"{path} has {self.counts[i]} durations with the sum {self.sums[i]} for sentence {i} (from 0), whose "
                f"source has {sources[i] + 1} tokens with both ends and whose target {targets[i] - 1} words; {AGAIN}"
            )

    def without(self, sentences: np.ndarray) -> Durations:
        """Not known in those that are true in `sentences` [N]."""
        kept = np.repeat(~sentences, self.counts)
        return Durations(self.numbers[kept], np.where(sentences, 0, self.counts))


def data_sha256(folder: Path, split: str, languages: Sequence[str], parts: bool) -> str:
    """Of the binarised tokens of a split, both sides, and of its further `parts` (train1, ...)."""
    found = hashlib.sha256()
    for path in token_files(folder, split, languages, parts):
        with open(path, "rb") as file:
            while data := file.read(READ):
                found.update(data)
    return found.hexdigest()


def token_files(folder: Path, split: str, languages: Sequence[str], parts: bool) -> Iterator[Path]:
    """The files that fairseq reads a split from, in its order."""
    for number in count() if parts else range(1):
        pairs = ("-".join(languages), "-".join(reversed(languages)))
        names = [f"{split}{number or ''}.{pair}" for pair in pairs]
        found = [name for name in names if (folder / f"{name}.{languages[0]}.bin").is_file()]
        if not found:
            return
        yield from (folder / f"{found[0]}.{language}.bin" for language in languages)


def write_durations(path: Path, rows: Iterable[Sequence[int]], sha256: str) -> None:
    """A row for each sentence, empty where nothing is known; complete or not at all."""
    lines = [" ".join(map(str, row)) for row in rows]
    head = f"# durations of {len(lines)} sentences, data of sha256 {sha256}"
    write_text(path, "".join(f"{line}\n" for line in [head, *lines]))


def read_durations(path: Path, sha256: str) -> Durations:
    """What `write_durations` wrote for the data of this sum."""
    numbers, counts = array("h"), array("q")
    try:
        with open(path, encoding="utf-8") as file:
            head = HEAD.fullmatch(file.readline().rstrip("\n"))
            for line in file if head else ():
                before = len(numbers)
                numbers.extend(map(int, line.split()))
                counts.append(len(numbers) - before)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read behind line {len(counts) + 1} ({error}); {AGAIN}") from error
    if head is None:
        raise UserError(f"{path} does not begin as a file of durations does; {AGAIN}")
    if head[2] != sha256:
        raise UserError(f"{path} is of other data than are trained on here; {AGAIN}, from this data-bin")
    found = np.frombuffer(numbers, np.int16) if numbers else np.zeros(0, np.int16)
    if len(counts) != int(head[1]) or (found < 0).any():
        what = "a number below 0" if (found < 0).any() else f"{len(counts)} lines"
        raise UserError(f"{path} is damaged: it has {what}, but is of {head[1]} sentences; {AGAIN}")
    return Durations(found, np.array(counts, np.int64))
