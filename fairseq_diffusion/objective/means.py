"""What is logged of a diffusion model beside its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.objective.reduction import Mean
from fairseq_diffusion.process.level import Level

BANDS = 10


def error_by_noise(level: Level, error: Tensor) -> dict[str, Mean]:
    """Mean of the errors [B] in ten bands of the noise's share of a state of unit variance, named by their lower edge
    in percent; `level` is [B, 1] or [B, L]."""
    share = (level.sigma / torch.hypot(level.alpha, level.sigma)).mean(-1)
    band = (share * BANDS).long().clamp(max=BANDS - 1)
    zeros = torch.zeros(BANDS, dtype=torch.float64, device=band.device)
    total = zeros.index_add(0, band, error.double())
    count = zeros.index_add(0, band, torch.ones_like(error).double())
    return {f"mse_noise_{100 * i // BANDS:02d}": Mean(*mean) for i, mean in enumerate(zip(total, count))}
