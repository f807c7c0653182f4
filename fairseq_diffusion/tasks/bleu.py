"""BLEU during validation, from counts that add up over batches and ranks."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.logging import metrics
from sacrebleu.metrics import BLEU
from torch import Tensor

ORDER = 4
KEYS = ["_bleu_sys_len", "_bleu_ref_len"] + [f"_bleu_{what}_{n}" for what in ("counts", "totals") for n in range(ORDER)]


def bleu_counts(hypotheses: list[str], references: list[str], tokenize: str) -> dict[str, int]:
    """Sufficient statistics of corpus BLEU."""
    score = BLEU(tokenize=tokenize, force=True).corpus_score(hypotheses, [references])
    return dict(zip(KEYS, [score.sys_len, score.ref_len, *score.counts, *score.totals]))


def bleu_from_counts(counts: Tensor) -> float:
    """BLEU (0..100) from summed statistics in the order of KEYS; 0 without words."""
    sys_len, ref_len, *rest = (int(count) for count in counts)
    return BLEU.compute_bleu(rest[:ORDER], rest[ORDER:], sys_len, ref_len, smooth_method="exp").score


def log_bleu(logging_outputs: list[dict[str, Any]]) -> None:
    """Log BLEU over all batches and ranks; always, so that --best-checkpoint-metric bleu finds it.

    Counts are a torch tensor: fairseq saves its meters, and numpy arrays would keep torch from loading them safely.
    """
    if any(KEYS[0] in log for log in logging_outputs):
        totals = torch.tensor([sum(float(log.get(key, 0)) for log in logging_outputs) for key in KEYS])
        metrics.log_scalar("_bleu", totals)
        metrics.log_derived("bleu", lambda meters: round(bleu_from_counts(meters["_bleu"].sum), 2))
