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
from fairseq_diffusion.models.means import BUCKETS, error_by_noise, means_of  # noqa: E402
from fairseq_diffusion.translators.diffusion import Losses  # noqa: E402

LOSS, RIGHT, SURE = [1.0, 2.0, 6.0, 3.0], [1, 0, 1, 1], [0.5, 0.25, 0.0, 0.125]
WORDS = [3, 1, 5, 7]


def model(src_tokens: Tensor, target: Tensor, ids: Tensor) -> dict[str, Any]:
    """Any kind of model, whose outputs are read from the tables above."""
    loss, right, sure, words = (torch.tensor([table[i] for i in ids]) for table in (LOSS, RIGHT, SURE, WORDS))
    return {
        "loss": loss.sum(),
        "sample_size": len(ids),
        "terms": {"rounding": 2 * loss.sum()},
        "means": {
            "length_accuracy": (right.sum(), torch.tensor(len(ids))),
            "word_accuracy": ((sure * words).sum(), words.sum()),
            "never_seen": (torch.tensor(0.0), torch.tensor(0)),
        },
        "state": {"sigma_min": torch.tensor(0.3)},
    }


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


def test_a_gaussian_models_means():
    sigma, error = torch.tensor([0.0, 0.05, 0.31, 1.0]), torch.tensor([1.0, 2.0, 4.0, 8.0])
    found = means_of(Losses({}, torch.tensor([True, False, True, True]), sigma, error))
    assert len(found) == 1 + BUCKETS
    seen = {name: (total.item(), count.item()) for name, (total, count) in found.items() if count > 0}
    assert seen == {"length_accuracy": (3, 4), "mse_noise_00": (3, 2), "mse_noise_30": (4, 1), "mse_noise_90": (8, 1)}


def test_a_length_predictor_alone_has_no_errors():
    assert error_by_noise(Losses({}, torch.ones(2))) == {}
