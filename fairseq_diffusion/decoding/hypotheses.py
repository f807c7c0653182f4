"""fairseq's form of the chosen candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.translators.batch import Candidates, HistoryStep


def hypotheses(
    candidates: Candidates, chosen: Sequence[Sequence[int]], eos: int, history: Sequence[HistoryStep] = ()
) -> list[list[dict[str, Any]]]:
    """The `chosen` candidates of each sentence, all on the host; `history` has all steps."""
    tokens = candidates.tokens
    ended = torch.cat([tokens, tokens.new_full((*tokens.shape[:2], 1), eos)], -1)
    ended = torch.where(ended == -1, eos, ended)
    steps = [HistoryStep(*(part.cpu() for part in step)) for step in history]

    def hypothesis(s: int, k: int) -> dict[str, Any]:
        size = int(candidates.sizes[s, k])
        return {
            "tokens": ended[s, k, : size + 1],
            "score": float(candidates.scores[s, k]),
            "positional_scores": candidates.log_p[s, k, : size + 1],
            "attention": None,
            "alignment": None,
            "steps": int(candidates.calls[s, k]),
            "history": [step_of(step, s, k) for step in steps],
        }

    return [[hypothesis(s, k) for k in order] for s, order in enumerate(chosen)]


def step_of(step: HistoryStep, s: int, k: int) -> dict[str, Tensor]:
    """An entry of one candidate's history, under fairseq's names."""
    size = int(step.sizes[s, k])
    return {"tokens": step.tokens[s, k, :size], "positional_scores": step.log_p[s, k, :size]}


def readable(history: Sequence[dict[str, Any]], dictionary: Any) -> list[dict[str, list[Any]]]:
    """A hypothesis' history as JSON has it: symbols, and how probable each was, null where none was predicted (and for
    fairseq's own iterative models, which keep tokens alone)."""
    return [
        {
            "tokens": [dictionary[token] for token in step["tokens"].tolist()],
            "p": probabilities(step["positional_scores"], len(step["tokens"])),
        }
        for step in history
    ]


def probabilities(log_p: Tensor | None, size: int) -> list[float | None]:
    if log_p is None:
        return [None] * size
    return [None if math.isnan(p) else round(p, 4) for p in log_p.float().exp().tolist()]
