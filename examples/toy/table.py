"""The demo's table: one row a system and sampler."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HEAD = ("system", "decoding", "steps", "calls", "BLEU", "unambiguous", "valid", "mixed", "sentences/s")


@dataclass(frozen=True)
class Row:
    """What was measured of one system decoded in one way."""

    system: str
    how: str
    steps: str
    calls: float
    bleu: float
    bleu_unambiguous: float
    valid: float
    mixed: float
    speed: float
    signature: str

    @classmethod
    def of(cls, system: str, how: str, steps: str, printed: str, score: dict[str, Any]) -> Row:
        """From what fairseq-generate printed and what `toy score` says."""
        speed = re.search(r"\(([\d.]+) sentences/s", printed)
        return cls(
            system,
            how,
            steps,
            network_calls(printed),
            score["bleu"],
            score["bleu_unambiguous"],
            score["valid"],
            score["mixed"],
            float(speed[1]) if speed else float("nan"),
            score["signature"],
        )

    def cells(self) -> tuple[str, ...]:
        numbers = (f"{self.calls:.3g}", f"{self.bleu:.2f}", f"{self.bleu_unambiguous:.2f}")
        return (
            self.system,
            self.how,
            self.steps,
            *numbers,
            f"{self.valid:.1%}",
            f"{self.mixed:.1%}",
            f"{self.speed:.1f}",
        )


def network_calls(printed: str) -> float:
    """Decoder calls a sentence: counted by our sampling loop (I- lines), or one a token and one for the end."""
    counted = [int(calls) for calls in re.findall(r"^I-\d+\t(\d+)$", printed, re.MULTILINE)]
    if counted:
        return sum(counted) / len(counted)
    probabilities = re.findall(r"^P-\d+\t(.*)$", printed, re.MULTILINE)
    return sum(len(row.split()) for row in probabilities) / len(probabilities)


def render(rows: Sequence[Row]) -> str:
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    notes = [
        "BLEU: against all valid translations; unambiguous: of the sentences that have one only.",
        "valid: outputs that are a valid translation; mixed: ambiguous, right but for mixed registers.",
        "calls: network calls of the decoder a candidate (a beam step of the Transformer counts as one).",
        f"sacreBLEU {rows[0].signature}",
    ]
    return "\n".join([*lines, "", *notes])
