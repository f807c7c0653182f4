"""Tables of the toy: what was measured of one decoding, its columns and what they mean, and cells as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fairseq_diffusion.files.generated import sentences
from fairseq_diffusion.reporting.table import table
from fairseq_diffusion.scoring.outputs import calls_of


@dataclass(frozen=True)
class Row:
    """What was measured of one system decoded in one way; None where there is nothing to measure it on."""

    system: str
    how: str
    steps: int | None
    calls: float | None
    bleu: float
    bleu_unambiguous: float | None
    valid: float
    mixed: float | None
    speed: float | None
    sentences: int
    ambiguous: int
    signature: str

    @classmethod
    def of(cls, system: str, how: str, report: dict[str, Any], printed: str, score: dict[str, Any]) -> Row:
        """From the report of fairseq-generate, the translations it printed, and their scores by `toy score`."""
        decoding, speed = report["decoding"], report["speed"]["end_to_end"]
        return cls(
            system=system,
            how=how,
            steps=decoding.get("steps"),
            calls=calls_of(decoding, list(sentences(printed.splitlines()))),
            speed=speed["sentences_per_second"],
            **{key: score[key] for key in ("bleu", "bleu_unambiguous", "valid", "mixed")},
            **{key: score[key] for key in ("sentences", "ambiguous", "signature")},
        )


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


COLUMNS: dict[str, Callable[[Row], str]] = {
    "system": lambda row: row.system,
    "decoding": lambda row: row.how,
    "steps": lambda row: number(row.steps, "d"),
    "calls": lambda row: number(row.calls, ".3g"),
    "BLEU": lambda row: number(row.bleu, ".2f"),
    "unambiguous": lambda row: number(row.bleu_unambiguous, ".2f"),
    "valid": lambda row: number(row.valid, ".1%"),
    "mixed": lambda row: number(row.mixed, ".1%"),
    "sentences/s": lambda row: number(row.speed, ".1f"),
}
MEANINGS = {
    "calls": "network calls of the decoder, mean of a candidate",
    "BLEU": "against all valid translations",
    "unambiguous": "BLEU of the sentences that have one valid translation only",
    "valid": "outputs that are a valid translation",
    "mixed": "of the ambiguous sentences, outputs that are right but for mixed registers",
    "sentences/s": "from the first batch to the last line printed, while another decoding ran beside it",
}
LEFT_TO_RIGHT = "The Transformer's calls: one a token, and one for the end."


def cells(row: Row, *names: str) -> tuple[str, ...]:
    return tuple(COLUMNS[name](row) for name in names)


def render(head: Sequence[str], body: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Two columns of words, then columns of numbers, and notes below."""
    return "\n".join([table(head, body, left=head[:2]), "", *notes])


def by_measure(measures: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Labels where each measure has all of these columns; its name is above the first of them."""
    return [label for name in measures for label in (f"{name} {columns[0]}", *columns[1:])]


def notes(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """What the columns mean, and what was tested on."""
    row = rows[0]
    return [
        *[f"{name}: {MEANINGS[name]}." for name in names if name in MEANINGS],
        f"Test set: {row.sentences} sentences, {row.ambiguous} of them ambiguous. sacreBLEU {row.signature}",
    ]
