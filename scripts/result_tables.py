"""Write the tables of measured results in the README and in docs from examples/*/results; --check says what is out of
date.

A table stands between two marks, the first of which says what it is of, the recipe and the choices that were made:

    <!-- results of multi30k/small direction=de-en subset=test -->
    <!-- end -->

Names of translations in further marks choose rows, in their order: `<!-- only NAME | NAME -->` on the next line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flag_tables import ROOT, Table, table, update

PAGES = (ROOT / "README.md", ROOT / "docs/quality.md")
RESULTS = ROOT / "examples"
MARKED = re.compile(
    r"(<!-- results of (\S+)((?: \w+=\S+)*) -->\n(?:<!-- only (.+) -->\n)?).*?(<!-- end -->)", re.DOTALL
)
HEAD = ["model", "updates", "translation", "calls", "BLEU", "chrF", "length ratio", "repeated words"]

Record = dict[str, Any]


def records(recipe: str, choices: Iterable[str]) -> list[Record]:
    """The stored results of a recipe with these choices, each NAME=WORD; the best model first, its best first."""
    wanted = {"recipe": recipe, **dict(choice.split("=", 1) for choice in choices)}
    paths = sorted((RESULTS / recipe.split("/")[0] / "results").rglob("*.json"))
    found = [record for record in map(read, paths) if wanted.items() <= record.items()]
    if not found:
        raise SystemExit(f"there are no results of {recipe} with {wanted} under {RESULTS}")
    best: dict[str, float] = {}
    for record in found:
        best[record["model"]] = max(bleu(record), best.get(record["model"], 0.0))
    return sorted(found, key=lambda record: (-best[record["model"]], record["model"], -bleu(record), record["name"]))


def read(path: Path) -> Record:
    return json.loads(path.read_text(encoding="utf-8"))


def bleu(record: Record) -> float:
    return record["scores"]["sacrebleu"]


def chosen(found: list[Record], names: str | None) -> list[Record]:
    if names is None:
        return found
    by_name = {record["name"]: record for record in found}
    wanted = [name.strip() for name in names.split("|")]
    if unknown := [name for name in wanted if name not in by_name]:
        raise SystemExit(f"there is no result {unknown[0]!r}; there are: {' | '.join(by_name)}")
    return [by_name[name] for name in wanted]


def rows(found: list[Record]) -> Table:
    """A line for each record; what a model is stands in its first."""
    lines, before = [], None
    for record in found:
        model, way = parts(record)
        training, scores, translating = record["training"], record["scores"], record["translating"]
        again = record["model"] == before
        before = record["model"]
        lines.append(
            [
                "" if again else model,
                "" if again else f"{training['updates']:,}",
                way,
                f"{translating['calls']:.1f}".removesuffix(".0"),
                f"{scores['sacrebleu']:.2f}",
                f"{scores['chrf']:.1f}",
                f"{scores['length_ratio']:.3f}",
                f"{100 * scores['repetition']:.1f} %",
            ]
        )
    return table(HEAD, lines)


def parts(record: Record) -> tuple[str, str]:
    """ "DINOISER, raw, 5 lengths, joint": the system with its training data, and how it translates."""
    data = record["model"].rsplit("-", 1)[1]
    system, way = record["name"].split(f", {data}, ", 1)
    return (system if data == "raw" else f"{system}, {data} data"), way


def filled(page: str) -> str:
    """A page with its tables as the results are now."""
    return MARKED.sub(
        lambda found: found[1] + "\n".join(rows(chosen(records(found[2], found[3].split()), found[4]))) + found[5], page
    )


def main(argv: list[str] | None = None) -> int:
    return update({path: filled(path.read_text(encoding="utf-8")) for path in PAGES}, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
