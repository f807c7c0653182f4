"""A comparison, laid out."""

from __future__ import annotations

from typing import Any

import pytest

from fairseq_diffusion.scoring.table import Markdown, Text, render

ROW = {"tokenised": None, "chrf": 50.0, "repetition": 0.0123, "calls": None, "file": "f_1.txt", "text": "as given"}


def comparison(**changed: Any) -> dict[str, Any]:
    rows = [
        {**ROW, "name": "A", "sacrebleu": 31.4159, "notes": []},
        {**ROW, "name": "B|<x>", "sacrebleu": 9.0, "calls": 7.7777, "notes": ["one", "two"]},
    ]
    return {
        "rows": rows,
        "references": ["r1", "r2"],
        "language": "",
        "sentences": 7,
        "reference_repetition": None,
        "signatures": {"sacrebleu": "nrefs:2|tok:13a", "chrf": "c*"},
        "significance": None,
        **changed,
    }


def test_text():
    table, legend, sources, signatures = render(comparison(), Text()).rstrip("\n").split("\n\n")
    assert table.splitlines() == [
        "system  sacreBLEU   chrF  repeated  calls  notes",
        "------  ---------  -----  --------  -----  --------",
        "A           31.42  50.00     1.23%      -",
        "B|<x>        9.00  50.00     1.23%  7.778  one; two",
    ]
    assert [line.split()[0] for line in legend.splitlines()] == ["repeated", "calls"]
    assert sources.splitlines()[0].split(maxsplit=1) == ["references", "r1, r2 (7 sentences, repeated -)"]
    assert "language    unknown, so there is no tokenised BLEU (--language)" in sources
    assert "A           f_1.txt, as given" in sources
    assert signatures.splitlines() == ["sacreBLEU  nrefs:2|tok:13a", "chrF       c*"]


def test_markdown():
    page = render(comparison(), Markdown())
    assert page.splitlines()[:2] == [
        "| system | sacreBLEU | chrF | repeated | calls | notes |",
        "| :-- | --: | --: | --: | --: | :-- |",
    ]
    assert "| B\\|\\<x> | 9.00 |" in page and "- chrF: c\\*\n" in page and "- sacreBLEU: nrefs:2|tok:13a" in page
    assert "- A: f\\_1.txt, as given" in page


@pytest.mark.parametrize("style", [Text(), Markdown()])
def test_significance(style: Any):
    p = {
        "sacrebleu": {"A": {"B|<x>": 0.01234}, "B|<x>": {"A": 0.01234}},
        "chrf": {"A": {"B|<x>": None}, "B|<x>": {"A": None}},
    }
    found = {"test": "paired bootstrap", "samples": 99, "seed": 5, "p": p}
    page = render(comparison(significance=found), style)
    assert "p-values of sacreBLEU (paired bootstrap, 99 samples, seed 5):" in page
    assert page.count("0.0123") == 2 and page.count("same") == 2
