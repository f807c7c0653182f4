"""What the criterion logs is the same however sentences are spread over batches and ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.logging import metrics
from torch import Tensor

import fairseq_diffusion

fairseq_diffusion.load()

from fairseq_diffusion.criterions.diffusion_loss import DiffusionLoss  # noqa: E402
from fairseq_diffusion.objective.reduction import Mean  # noqa: E402
from fairseq_diffusion.translators.base import Losses  # noqa: E402

LOSS, RIGHT, SURE = [1.0, 2.0, 6.0, 3.0], [1, 0, 1, 1], [0.5, 0.25, 0.0, 0.125]
WORDS = [3, 1, 5, 7]


def model(src_tokens: Tensor, target: Tensor, ids: Tensor) -> Losses:
    """Any kind of model, whose outputs are read from the tables above."""
    loss, right, sure, words = (torch.tensor([table[i] for i in ids]) for table in (LOSS, RIGHT, SURE, WORDS))
    return Losses(
        total=loss.sum(),
        terms={"rounding": 2 * loss},
        sample_size=len(ids),
        means={
            "length_accuracy": Mean.of(right),
            "word_accuracy": Mean((sure * words).sum(), words.sum()),
            "never_seen": Mean(torch.tensor(0.0), torch.tensor(0)),
        },
        state={"sigma_min": torch.tensor(0.3)},
    )


def log_of(ids: list[int]) -> dict[str, Any]:
    sample = {"net_input": {"src_tokens": None}, "target": None, "id": torch.tensor(ids), "ntokens": 5 * len(ids)}
    return DiffusionLoss(SimpleNamespace()).forward(model, sample)[2]


def logged(logs: list[dict[str, Any]]) -> dict[str, float]:
    metrics.reset()
    with metrics.aggregate() as found:
        DiffusionLoss.reduce_metrics(logs)
    return dict(found.get_smoothed_values())


@pytest.mark.parametrize("parts", [[[0, 1, 2, 3]], [[0], [1, 2, 3]], [[3, 0], [2], [1]]])
def test_means_are_over_sentences_and_words_not_over_batches(parts: list[list[int]]):
    logs = [log_of(ids) for ids in parts]
    expected = {
        "loss": 3.0,
        "rounding": 6.0,
        "length_accuracy": 0.75,
        "word_accuracy": round((0.5 * 3 + 0.25 * 1 + 0.125 * 7) / 16, 4),
        "sigma_min": 0.3,
    }
    assert logged(logs) == pytest.approx(expected, abs=1e-4)
    assert DiffusionLoss.logging_outputs_can_be_summed()
    total = {key: sum(log[key] for log in logs) for key in logs[0]}  # as ranks exchange them
    assert logged([total]) == pytest.approx(expected, abs=1e-4)
