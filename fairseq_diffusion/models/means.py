"""What is watched of a Gaussian model beside its loss: means, as sums and counts that add up over batches."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.translators.diffusion import Losses

BUCKETS = 10


def means_of(losses: Losses) -> dict[str, tuple[Tensor, Tensor]]:
    """Sum and count of each quantity, by the name it is logged under."""
    right = losses.length_correct
    return {"length_accuracy": (right.sum(), torch.ones_like(right).sum()), **error_by_noise(losses)}


def error_by_noise(losses: Losses) -> dict[str, tuple[Tensor, Tensor]]:
    """Summed squared errors and sentence counts in ten bands of sigma, named by their lower edge in percent."""
    if losses.sigma is None or losses.error is None:
        return {}
    band = (losses.sigma * BUCKETS).long().clamp(max=BUCKETS - 1)
    zeros = torch.zeros(BUCKETS, dtype=torch.float64, device=band.device)
    error = zeros.index_add(0, band, losses.error.double())
    count = zeros.index_add(0, band, torch.ones_like(losses.error).double())
    return {f"mse_noise_{100 * i // BUCKETS:02d}": mean for i, mean in enumerate(zip(error, count))}
