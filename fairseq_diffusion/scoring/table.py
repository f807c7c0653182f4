"""A comparison as text or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

# Label and form of each figure, in the order of the table; a column in which no row has anything is left out.
COLUMNS = {
    "sacrebleu": ("sacreBLEU", ".2f"),
    "tokenised": ("tokenised BLEU", ".2f"),
    "compound_split": ("compound-split BLEU", ".2f"),
    "chrf": ("chrF", ".2f"),
    "ter": ("TER", ".2f"),
    "comet": ("COMET", ".4f"),
    "brevity_penalty": ("brevity penalty", ".3f"),
    "length_ratio": ("length ratio", ".3f"),
    "repetition": ("repeated", ".2%"),
    "unknown": ("unknown", ".2%"),
    "steps": ("steps", "d"),
    "calls": ("calls", ".4g"),
}
LEGEND = {
    "repeated": "words that equal the word before them (tokenised BLEU's words)",
    "unknown": "words printed as <unk>",
    "calls": "network calls of the decoder, mean of a candidate",
}


class Style(Protocol):
    def table(self, head: list[str], rows: list[list[str]]) -> str: ...

    def facts(self, facts: list[tuple[str, str]]) -> str: ...


class Text:
    """For a terminal."""

    def table(self, head: list[str], rows: list[list[str]]) -> str:
        """The first column is a name, the last may be notes; head words stand below each other."""
        widths = [max(map(len, [*words.split(), *cells])) for words, *cells in zip(head, *rows)]
        tall = max(len(words.split()) for words in head)
        heads = [[""] * (tall - len(words.split())) + words.split() for words in head]
        lines = [*map(list, zip(*heads)), ["-" * width for width in widths], *rows]
        return "\n".join(self._line(line, widths, head) for line in lines)

    def _line(self, cells: list[str], widths: list[int], head: list[str]) -> str:
        padded = [
            cell.ljust(width) if is_words(label) else cell.rjust(width)
            for cell, width, label in zip(cells, widths, head)
        ]
        return "  ".join(padded).rstrip()

    def facts(self, facts: list[tuple[str, str]]) -> str:
        width = max(len(label) for label, _ in facts)
        return "\n".join(f"{label.ljust(width)}  {text}" for label, text in facts)


class Markdown:
    """For a page."""

    def table(self, head: list[str], rows: list[list[str]]) -> str:
        rule = [":--" if is_words(label) else "--:" for label in head]
        lines = [[escaped(cell).replace("|", "\\|") for cell in line] for line in [head, rule, *rows]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def facts(self, facts: list[tuple[str, str]]) -> str:
        return "\n".join(f"- {label}: {escaped(text)}" for label, text in facts)


def is_words(label: str) -> bool:
    """Whether a column holds words, not numbers."""
    return label in ("system", "notes")


def escaped(text: str) -> str:
    for mark in "\\<*_":
        text = text.replace(mark, f"\\{mark}")
    return text


def render(comparison: dict[str, Any], style: Style) -> str:
    return "\n\n".join(parts(comparison, style)) + "\n"


def parts(comparison: dict[str, Any], style: Style) -> Iterator[str]:
    rows, signatures = comparison["rows"], comparison["signatures"]
    columns = {name: form for name, form in COLUMNS.items() if any(row.get(name) is not None for row in rows)}
    notes = any(row["notes"] for row in rows)
    head = ["system", *(label for label, _ in columns.values()), *["notes"] * notes]
    yield style.table(
        head,
        [
            [
                row["name"],
                *(cell(row.get(name), form) for name, (_, form) in columns.items()),
                *["; ".join(row["notes"])] * notes,
            ]
            for row in rows
        ],
    )
    yield style.facts([(label, LEGEND[label]) for label, _ in columns.values() if label in LEGEND])
    yield style.facts(list(references_told(comparison)))
    yield style.facts([(COLUMNS[name][0], signatures[name]) for name in COLUMNS if name in signatures])
    if comparison["significance"]:
        yield from significance_parts(comparison["significance"], [row["name"] for row in rows], style)


def cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def references_told(comparison: dict[str, Any]) -> Iterator[tuple[str, str]]:
    share = cell(comparison["reference_repetition"], ".2%")
    yield "references", f"{', '.join(comparison['references'])} ({comparison['sentences']} sentences, repeated {share})"
    yield "language", comparison["language"] or "not said, so there is no BLEU of tokens (--language)"
    for row in comparison["rows"]:
        yield row["name"], f"{row['file']}, {row['text']}"


def significance_parts(significance: dict[str, Any], names: list[str], style: Style) -> Iterator[str]:
    how = f"{significance['test']}, {significance['samples']} samples, seed {significance['seed']}"
    for metric, pairs in significance["p"].items():
        yield f"p-values of {COLUMNS[metric][0]} ({how}):"
        rows = [[one, *(p_text(pairs, one, other) for other in names)] for one in names]
        yield style.table(["system", *names], rows)


def p_text(pairs: dict[str, Any], one: str, other: str) -> str:
    if one == other:
        return ""
    p = pairs[one][other]
    return "same" if p is None else f"{p:.4f}"
