"""How well words are translated by how often they occur in training text."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.texts import read_lines
from fairseq_diffusion.scoring.outputs import without_pieces
from fairseq_diffusion.scoring.text_forms import TextForms

BUCKETS = "1,10,100,1000"
Tokens = list[list[str]]  # of each sentence


@dataclass(frozen=True)
class Training:
    """Training text of the target side, its word pieces joined, and where its buckets of words begin; the first begins
    at 0."""

    path: Path
    lines: list[str]
    bounds: tuple[int, ...]

    @classmethod
    def read(cls, path: Path, bounds: str) -> Training:
        """`bounds` as a user types them."""
        checked = bounds_of(bounds)
        lines = read_lines(path, "--frequencies")
        if not any(line.strip() for line in lines):
            raise UserError(f"--frequencies {path} is empty; name the target side of the training text")
        return cls(path, without_pieces(lines), checked)

    @property
    def names(self) -> list[str]:
        """Of the buckets: 0, 1-9, 10-99, ..., 1000+."""
        starts = (0, *self.bounds)
        spans = [(first, after - 1) for first, after in zip(starts, starts[1:])]
        return [str(first) if first == last else f"{first}-{last}" for first, last in spans] + [f"{starts[-1]}+"]


def bounds_of(text: str) -> tuple[int, ...]:
    """ "1,10,100" -> (1, 10, 100)."""
    try:
        bounds = tuple(map(int, text.split(",")))
    except ValueError:
        bounds = ()
    if not bounds or bounds[0] < 1 or any(one >= other for one, other in zip(bounds, bounds[1:])):
        raise UserError(
            f"--buckets {text!r} are no numbers from 1 on that rise; pass the least number of occurrences in each "
            f"bucket but the first, as in {BUCKETS}"
        )
    return bounds


class WordScores:
    """Recall and precision of words, in buckets by their number in the training text."""

    def __init__(self, training: Training, text_forms: TextForms, references: list[Tokens], lowercase: bool):
        """`references` has the tokens of each file."""
        self.training, self.lowercase = training, lowercase
        self.references = [self._counted(sentences) for sentences in references]
        counts = text_forms.counts(training.lines)
        if counts is None or not references:
            raise UserError(
                "--frequencies counts tokens, but text of this language cannot be tokenised here, or its language is "
                "not known; pass --language, or drop --frequencies"
            )
        self.counts: Counter[str] = Counter()
        for word, number in counts.items():
            self.counts[self._form(word)] += number

    def _form(self, word: str) -> str:
        return word.lower() if self.lowercase else word

    def _counted(self, sentences: Tokens) -> list[Counter[str]]:
        return [Counter(map(self._form, words)) for words in sentences]

    def _buckets(self) -> list[int]:
        return [0] * (len(self.training.bounds) + 1)

    def _bucket(self, word: str) -> int:
        return bisect_right(self.training.bounds, self.counts[word])

    def facts(self) -> dict[str, Any]:
        """What the buckets are, and how many words of the references are in each."""
        total = self._buckets()
        for sentence in (sentence for sentences in self.references for sentence in sentences):
            for word, number in sentence.items():
                total[self._bucket(word)] += number
        return {"file": str(self.training.path), "buckets": self.training.names, "reference_words": total}

    def of(self, tokens: Tokens) -> dict[str, list[Any]]:
        """Of an output: recall, precision and F1 in each bucket, None where it has no words, and its numbers of words.

        In each sentence a word counts as often as both sides have it.  A word of any reference is precise; recall is of
        the words of all references.
        """
        found, wanted, right, printed = (self._buckets() for _ in range(4))
        for sentence, own in zip(self._counted(tokens), zip(*self.references)):
            for reference in own:
                for word, number in reference.items():
                    wanted[self._bucket(word)] += number
                    found[self._bucket(word)] += min(number, sentence[word])
            for word, number in sentence.items():
                printed[self._bucket(word)] += number
                right[self._bucket(word)] += min(number, max(reference[word] for reference in own))
        recall, precision = shares(found, wanted), shares(right, printed)
        f1 = [harmonic_mean(*pair) for pair in zip(recall, precision)]
        return {"recall": recall, "precision": precision, "f1": f1, "words": printed}


def shares(parts: list[int], wholes: list[int]) -> list[float | None]:
    return [part / whole if whole else None for part, whole in zip(parts, wholes)]


def harmonic_mean(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0
