"""What --retain-iter-history keeps, as a file beside fairseq's text: a sentence a line, its candidates step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from fairseq import utils

from fairseq_diffusion.decoding.hypotheses import readable
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.histories import parse
from fairseq_diffusion.output import written_whole


def history_path(report: Path) -> Path:
    """Beside a report: generate-SUBSET.json -> generate-SUBSET.history.jsonl."""
    return report.with_suffix(".history.jsonl")


def make_room(path: Path) -> None:
    """Remove the history of the text that fairseq has just emptied."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline()
    if first and parse(first) is None:
        raise UserError(f"the history would replace {path}, which we did not write; take another --results-path")
    path.unlink()


@contextmanager
def history_file(cfg: Any, report: Path | None) -> Iterator[History | None]:
    """The file to enter sentences in, where a history is kept and there is a folder for it; there when all are."""
    if report is None or not cfg.generation.retain_iter_history:
        yield None
        return
    with written_whole(history_path(report)) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield History(cfg, file)


class History:
    """Sentences as they are decoded, each a line."""

    def __init__(self, cfg: Any, file: TextIO):
        self.cfg, self.file = cfg, file
        self._decoders: list[Any] | None = None  # fairseq's BPE and tokenizer, made once

    def add(self, task: Any, batch: dict[str, Any], hypotheses: list[list[dict[str, Any]]]) -> None:
        """Enter a batch that `task` has decoded."""
        if self._decoders is None:
            parts = task.build_bpe(self.cfg.bpe), task.build_tokenizer(self.cfg.tokenizer)
            self._decoders = [part for part in parts if part]
        for row, found in enumerate(hypotheses):
            json.dump(self._sentence(task, batch, row, found), self.file, ensure_ascii=False)
            self.file.write("\n")

    def _sentence(self, task: Any, batch: dict[str, Any], row: int, found: list[dict[str, Any]]) -> dict[str, Any]:
        source, target = task.source_dictionary, task.target_dictionary
        tokens = utils.strip_pad(batch["net_input"]["src_tokens"][row], source.pad())
        sentence = {"id": int(batch["id"][row]), "source": self._text(source, tokens)}
        if batch.get("target") is not None:
            sentence["reference"] = self._text(target, utils.strip_pad(batch["target"][row], target.pad()))
        candidates = [
            {
                "text": self._text(target, hypothesis["tokens"]),
                "score": round(float(hypothesis["score"]), 4),
                "calls": hypothesis["steps"],
                "steps": readable(hypothesis["history"], target),
            }
            for hypothesis in found[: self.cfg.generation.nbest]
        ]
        return {**sentence, "candidates": candidates}

    def _text(self, dictionary: Any, tokens: Any) -> str:
        """As fairseq prints it in the lines S-, T- and D-."""
        text = dictionary.string(tokens.int().cpu(), self.cfg.common_eval.post_process)
        for decoder in self._decoders or ():
            text = decoder.decode(text)
        return text
