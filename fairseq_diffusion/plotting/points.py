"""Points (network calls, BLEU) from the table of ``fairseq-diffusion score --json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import lines_of
from fairseq_diffusion.files.json_text import fits, is_number, is_text, parsed


class Point(NamedTuple):
    """A decoding, by its network calls and its BLEU."""

    series: str
    label: str
    calls: float
    bleu: float


def read_points(path: Path) -> tuple[list[Point], list[str]]:
    """The rows that can be drawn, and the names of those that lack network calls or sacreBLEU."""
    points, left_out = [], []
    for row in read_rows(path):
        name, calls, bleu = row["name"], row.get("calls"), row.get("sacrebleu")
        if is_number(calls) and calls > 0 and is_number(bleu):
            series, _, label = name.rpartition(",")
            points.append(Point(series.strip() or name, label.strip() if series else "", calls, bleu))
        else:
            left_out.append(name)
    if not points:
        raise UserError(
            f"no row of {path} has both network calls and sacreBLEU; score the outputs of fairseq-generate that lie "
            "beside their reports (--results-path), against raw references"
        )
    return points, left_out


def read_rows(path: Path) -> list[dict[str, Any]]:
    text = "".join(lines_of(path))
    try:
        table = parsed(text)
    except ValueError:
        table = None
    if not fits(table, {"rows": [{"name": is_text}]}):
        raise UserError(f"{path} is no table; name what fairseq-diffusion score --json wrote")
    return table["rows"]


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other dominates: with no more calls a higher BLEU, or the same BLEU with fewer calls."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.calls, -point.bleu)):
        if not front or point.bleu > front[-1].bleu:
            front.append(point)
    return front
