"""Tables as text for a terminal: words are aligned to the left of their column, numbers to the right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str]) -> str:
    """A head, a rule under it, and rows.

    Args:
        head: the label of each column; the words of a label stand below each other
        rows: cells, one under each label
        left: labels of the columns that hold words
    """
    labels = [label.split() for label in head]
    tall = max(map(len, labels))
    heads = list(zip(*([""] * (tall - len(words)) + words for words in labels)))
    rule = ["-" * max(map(len, column)) for column in zip(*heads, *rows)]
    return "\n".join(aligned([*heads, rule, *rows], [label in left for label in head]))


def aligned(rows: Sequence[Sequence[str]], left: Sequence[bool]) -> list[str]:
    """A line for each row; `left` says of each column whether it holds words."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(cell.ljust(w) if words else cell.rjust(w) for cell, w, words in zip(row, widths, left)).rstrip()
        for row in rows
    ]


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """A label and a text in each line."""
    return "\n".join(aligned(rows, (True, True)))


def cell(value: Any, form: str) -> str:
    """A value in a format, a dash for None."""
    return "-" if value is None else format(value, form)
