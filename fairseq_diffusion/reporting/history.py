"""What --retain-iter-history keeps, as a file beside fairseq's text: a sentence a line, its candidates step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from fairseq_diffusion.decoding.hypotheses import readable
from fairseq_diffusion.files.histories import parse
from fairseq_diffusion.files.writing import atomic_write
from fairseq_diffusion.reporting.texts import Texts


def history_path(report: Path) -> Path:
    """Beside a report: generate-SUBSET.json -> generate-SUBSET.history.jsonl."""
    return report.with_suffix(".history.jsonl")


def is_history(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline()
    return not first or parse(first) is not None


@contextmanager
def history_file(cfg: Any, path: Path | None) -> Iterator[TextIO | None]:
    """The file `path` to write to, there once it is complete, if --retain-iter-history is given."""
    if path is None or not cfg.generation.retain_iter_history:
        yield None
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


def line(texts: Texts, batch: dict[str, Any], row: int, hypotheses: list[dict[str, Any]]) -> str:
    """The line of one sentence of a batch."""
    reference = texts.reference(batch, row)
    sentence = {
        "id": int(batch["id"][row]),
        "source": texts.joined(texts.source(batch, row)),
        **({} if reference is None else {"reference": texts.joined(reference)}),
        "candidates": [
            {
                "text": texts.joined(texts.hypothesis(batch, row, hypothesis)),
                "score": round(float(hypothesis["score"]), 4),
                "calls": hypothesis["steps"],
                "steps": readable(hypothesis["history"], texts.task.target_dictionary),
            }
            for hypothesis in hypotheses
        ],
    }
    return json.dumps(sentence, ensure_ascii=False) + "\n"
