"""A parser of generate-SUBSET.history.jsonl, the steps of --retain-iter-history, with a JSON object per line.

{"id", "source", "reference" (if there is one), "candidates": [{"text", "score", "calls", "steps": [{"tokens", "p"}]}]}
with a probability, or null, in "p" for each token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files.generated import lines_of
from fairseq_diffusion.files.json_text import (
    fits,
    is_count,
    is_number,
    is_probability,
    is_score,
    is_text,
    maybe,
    parsed,
)

STEP = {"tokens": [is_text], "p": [maybe(is_probability)]}
CANDIDATE = {"text": is_text, "score": is_score, "calls": is_number, "steps": [STEP]}
SENTENCE = {"id": is_count, "source": is_text, "reference": maybe(is_text), "candidates": [CANDIDATE]}


def parse(line: str) -> dict[str, Any] | None:
    """The sentence of a line; None for any other line."""
    try:
        record = parsed(line)
    except ValueError:
        return None
    return record if fits(record, SENTENCE) and all(map(is_whole, steps_of(record))) else None


def steps_of(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for candidate in record["candidates"]:
        yield from candidate["steps"]


def is_whole(step: dict[str, Any]) -> bool:
    return len(step["tokens"]) == len(step["p"])


def read(path: Path) -> list[dict[str, Any]]:
    """Every sentence of a file, in the order of the data."""
    found = [parse(line) for line in lines_of(path) if line.strip()]
    sentences = [sentence for sentence in found if sentence is not None]
    if not sentences or len(sentences) < len(found):
        raise UserError(
            f"{path} is no history: {len(found) - len(sentences)} of its {len(found)} lines hold no sentence; decode "
            "with --retain-iter-history --results-path DIR, and name DIR/generate-SUBSET.history.jsonl"
        )
    (number, times), *_ = Counter(sentence["id"] for sentence in sentences).most_common(1)
    if times > 1:
        raise UserError(f"{path} holds sentence {number} twice, like two histories joined; give each its own file")
    return sorted(sentences, key=lambda sentence: sentence["id"])


def chosen(sentences: list[dict[str, Any]], ids: Iterable[str], most: int) -> list[dict[str, Any]]:
    """The sentences of these ids in their order, or the first `most` without ids."""
    by_id = {str(sentence["id"]): sentence for sentence in sentences}
    if missing := [i for i in ids if i not in by_id]:
        there = ", ".join(islice(by_id, 5))
        raise UserError(f"the history holds no sentence {missing[0]!r}; it has {len(by_id)}, among them {there}")
    return [by_id[i] for i in ids] or sentences[:most]
