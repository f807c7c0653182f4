"""A parser of generate-SUBSET.history.jsonl, the steps of --retain-iter-history, with a JSON object per line.

{"id", "source", "reference" (if there is one), "candidates": [{"text", "score", "calls", "steps": [{"tokens", "p"}]}]}
with a probability, or null, in "p" for each token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import lines_of


def parse(line: str) -> dict[str, Any] | None:
    """The sentence of a line; None for any other line."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "id" in record and "candidates" in record else None


def read(path: Path) -> list[dict[str, Any]]:
    """Every sentence of a file, in the order of the data."""
    found = [parse(line) for line in lines_of(path) if line.strip()]
    sentences = [sentence for sentence in found if sentence is not None]
    if not sentences or len(sentences) < len(found):
        raise UserError(
            f"{path} is no history: {len(found) - len(sentences)} of its {len(found)} lines hold no sentence; decode "
            "with --retain-iter-history --results-path DIR, and name DIR/generate-SUBSET.history.jsonl"
        )
    return sorted(sentences, key=lambda sentence: sentence["id"])


def chosen(sentences: list[dict[str, Any]], ids: Iterable[str], most: int) -> list[dict[str, Any]]:
    """The sentences of these ids in their order, or the first `most` without ids."""
    by_id = {str(sentence["id"]): sentence for sentence in sentences}
    if missing := [i for i in ids if i not in by_id]:
        there = ", ".join(islice(by_id, 5))
        raise UserError(f"the history holds no sentence {missing[0]!r}; it has {len(by_id)}, among them {there}")
    return [by_id[i] for i in ids] or sentences[:most]
