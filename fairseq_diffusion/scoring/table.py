"""A comparison as text or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairseq_diffusion.reporting.table import cell, pairs, table

WORDS = ("system", "notes", "measure")  # labels of the columns that hold words, not numbers
# Label and format of each metric, in the order of the table; a column without values is left out.
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
BY_FREQUENCY = {"recall": "recall", "precision": "precision", "f1": "F1"}
LEGEND = {
    "repeated": "words that equal the word before them (tokenised BLEU's words)",
    "unknown": "words printed as <unk>",
    "calls": "network calls of the decoder, mean of a candidate",
}


class Text:
    """Format for a terminal."""

    def table(self, head: list[str], rows: list[list[str]]) -> str:
        return table(head, rows, WORDS)

    def pairs(self, rows: list[tuple[str, str]]) -> str:
        return pairs(rows)


class Markdown(Text):
    """Format for a page."""

    def table(self, head: list[str], rows: list[list[str]]) -> str:
        rule = [":--" if label in WORDS else "--:" for label in head]
        lines = [[escaped(cell).replace("|", "\\|") for cell in line] for line in [head, rule, *rows]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def pairs(self, rows: list[tuple[str, str]]) -> str:
        return "\n".join(f"- {label}: {escaped(text)}" for label, text in rows)


def escaped(text: str) -> str:
    for mark in "\\<*_":
        text = text.replace(mark, f"\\{mark}")
    return text


def render(comparison: dict[str, Any], style: Text) -> str:
    return "\n\n".join(parts(comparison, style)) + "\n"


def parts(comparison: dict[str, Any], style: Text) -> Iterator[str]:
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
    yield style.pairs([(label, LEGEND[label]) for label, _ in columns.values() if label in LEGEND])
    yield style.pairs(list(reference_facts(comparison)))
    yield style.pairs([(COLUMNS[name][0], signatures[name]) for name in COLUMNS if name in signatures])
    if "frequencies" in comparison:
        yield from frequency_parts(comparison["frequencies"], rows, style)
    if comparison["significance"]:
        yield from significance_parts(comparison["significance"], [row["name"] for row in rows], style)


def reference_facts(comparison: dict[str, Any]) -> Iterator[tuple[str, str]]:
    share = cell(comparison["reference_repetition"], ".2%")
    yield "references", f"{', '.join(comparison['references'])} ({comparison['sentences']} sentences, repeated {share})"
    yield "language", comparison["language"] or "unknown, so there is no tokenised BLEU (--language)"
    for row in comparison["rows"]:
        yield row["name"], f"{row['file']}, {row['text']}"


def frequency_parts(facts: dict[str, Any], rows: list[dict[str, Any]], style: Text) -> Iterator[str]:
    """One row for the references' numbers of words, and for each system one a measure."""
    yield f"words by how often they are in {facts['file']}:"
    lines = [["references", "number", *map(str, facts["reference_words"])]]
    for row in rows:
        for name, label in BY_FREQUENCY.items():
            shown = row["name"] if name == "recall" else ""
            lines.append([shown, label, *(cell(value, ".1%") for value in row["by_frequency"][name])])
    yield style.table(["system", "measure", *facts["buckets"]], lines)


def significance_parts(significance: dict[str, Any], names: list[str], style: Text) -> Iterator[str]:
    how = f"{significance['test']}, {significance['samples']} samples, seed {significance['seed']}"
    for metric, p in significance["p"].items():
        yield f"p-values of {COLUMNS[metric][0]} ({how}):"
        rows = [[one, *(p_text(p, one, other) for other in names)] for one in names]
        yield style.table(["system", *names], rows)


def p_text(p: dict[str, Any], one: str, other: str) -> str:
    if one == other:
        return ""
    return "same" if p[one][other] is None else f"{p[one][other]:.4f}"
