"""The one place where what sentences cost becomes a batch's loss, and the means that are logged beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.level import Level

NORMALISERS = ("sentences", "tokens", "words")
BANDS = 10  # of noise, in the log


class Mean(NamedTuple):
    """Something to log: a sum over the batch, and the number that it is to be divided by."""

    total: Tensor
    number: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """Of any values."""
        return cls(values.sum(), torch.ones_like(values, dtype=torch.long).sum())


class Reduction:
    """With normaliser "sentences" every sentence counts alike; with "tokens" a sentence counts as often as it has
    tokens; with "words" every word that has a loss counts alike, and of lengths every sentence.

    Losses stay sums over the batch; fairseq divides by the sum of `sample_size` over ranks and --update-freq, so that
    neither changes what a sentence weighs.  With "words" means are over what one rank has at once, as in fairseq's own
    criterion, and what it has weighs by its tokens.
    """

    def __init__(self, normaliser: str = "sentences"):
        if normaliser not in NORMALISERS:
            raise UserError(f"unknown loss normaliser {normaliser!r}; choose one of: {', '.join(NORMALISERS)}")
        self.normaliser = normaliser

    def share(self, values: Tensor, mask: Tensor) -> Tensor:
        """Values [B, L], or one a sentence [B], -> what each sentence adds to the loss, [B]; mask [B, L] is true where
        a loss is due."""
        if values.dim() == 1:
            if self.normaliser == "words":
                return values * mask.sum() / len(mask)
            values = values[:, None].expand(mask.shape)
        total = values.masked_fill(~mask, 0).sum(-1)
        return total / mask.sum(-1).clamp(min=1) if self.normaliser == "sentences" else total

    def share_of_words(self, nll: Tensor, count: Tensor, mask: Tensor) -> Tensor:
        """The same for nll [B], each a sum over `count` [B] words of a target with mask [B, L]."""
        if self.normaliser == "words":
            return nll * mask.sum() / count.sum()
        return self.share(nll / count, mask)

    def share_of_mean(self, values: Tensor, mask: Tensor) -> Tensor:
        """The same for values [B] that sum up to a mean over the batch, whatever counts alike elsewhere."""
        return values * self.sample_size(mask)

    def sample_size(self, mask: Tensor) -> int | Tensor:
        """What the summed shares are to be divided by."""
        return len(mask) if self.normaliser == "sentences" else mask.sum()


def error_by_noise(level: Level, error: Tensor) -> dict[str, Mean]:
    """Mean of the errors [B] in ten bands of the noise's share of a state of unit variance, named by their lower edge
    in percent; `level` is [B, 1] or [B, L]."""
    share = (level.sigma / torch.hypot(level.alpha, level.sigma)).mean(-1)
    band = (share * BANDS).long().clamp(max=BANDS - 1)
    zeros = torch.zeros(BANDS, dtype=torch.float64, device=band.device)
    total = zeros.index_add(0, band, error.double())
    count = zeros.index_add(0, band, torch.ones_like(error).double())
    return {f"mse_noise_{100 * i // BANDS:02d}": Mean(*mean) for i, mean in enumerate(zip(total, count))}
