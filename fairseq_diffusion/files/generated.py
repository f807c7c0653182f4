"""A parser of what fairseq-generate and fairseq-interactive print, for scoring, distilling and plotting."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from fairseq_diffusion.errors import UserError

LINE = re.compile(r"([STHDPE])-([0-9]{1,15})(?:_([0-9]{1,15}))?\t(.*)")


@dataclass
class Hypothesis:
    """One of a sentence's translations.  `text` has the pieces as printed; `detokenised` is a D- line."""

    score: float
    text: str
    detokenised: str | None = None
    word_scores: list[float] = field(default_factory=list)  # of the tokens and </s>, from the P- line
    steps: dict[int, str] = field(default_factory=dict)  # the E- lines of --retain-iter-history


@dataclass
class Sentence:
    """A sentence of the data and its hypotheses, the best one first."""

    number: int
    source: str | None = None
    reference: str | None = None
    hypotheses: list[Hypothesis] = field(default_factory=list)


def is_generated(line: str) -> bool:
    """Whether a line is part of a sentence or its translation."""
    return LINE.fullmatch(line.rstrip("\r\n")) is not None


def sentences(lines: Iterable[str], where: str = "fairseq-generate's output") -> Iterator[Sentence]:
    """Sentences in the order printed, one in memory at a time; all other lines are ignored.  `where` they are is for
    errors."""
    matches = filter(None, (LINE.fullmatch(line.rstrip("\r\n")) for line in lines))
    for number, own in groupby(matches, key=lambda match: int(match[2])):
        sentence = Sentence(number)
        for match in own:
            try:
                add_line(sentence, match)
            except ValueError as error:
                raise UserError(
                    f"a line of {where} is cut off: {match[0][:200]!r}; was the decoding stopped? Decode again"
                ) from error
        if any(math.isnan(hypothesis.score) for hypothesis in sentence.hypotheses):
            raise UserError(
                f"sentence {number} has a translation whose score is no number (nan) in {where}, so the weights or the "
                "precision were not good; decode again, without --fp16 if it was given, or with an earlier "
                "checkpoint"
            )
        yield sentence


def add_line(sentence: Sentence, match: re.Match[str]) -> None:
    """Add what is in one line; ValueError if the line is incomplete."""
    letter, _, step, text = match.groups()
    if letter == "S":
        sentence.source = text
    elif letter == "T":
        sentence.reference = text
    elif letter == "H":
        score, words = text.split("\t", 1)
        sentence.hypotheses.append(Hypothesis(float(score), words))
    elif sentence.hypotheses:
        last = sentence.hypotheses[-1]
        if letter == "D":
            _, last.detokenised = text.split("\t", 1)
        elif letter == "P":
            last.word_scores = [float(score) for score in text.split()]
        elif step is not None:
            last.steps[int(step)] = text


def read(path: str | Path) -> dict[int, Sentence]:
    """Every sentence of a file by its number; a sentence that is printed twice is refused."""
    found: dict[int, Sentence] = {}
    for sentence in sentences(lines_of(path), str(path)):
        if sentence.number in found:
            raise UserError(
                f"{path} holds sentence {sentence.number} twice, like two outputs of fairseq-generate joined; "
                "give each its own file"
            )
        found[sentence.number] = sentence
    return found


def lines_of(path: str | Path, errors: str = "strict") -> Iterator[str]:
    """The lines of a UTF-8 file, which line feeds alone end; `errors` is that of `open`."""
    try:
        with open(path, encoding="utf-8", errors=errors, newline="\n") as lines:
            yield from lines
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}); convert it, or name another file") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
