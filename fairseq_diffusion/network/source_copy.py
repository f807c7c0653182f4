"""What the decoder's positions copy from the source: embeddings of the words that stand at about the same place.

Places are counted over real tokens, so that padding on either side makes no difference.
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor, nn

from fairseq_diffusion.registry import Registry

COPIES: Registry[Callable[[], nn.Module]] = Registry("source copy")


def places(mask: Tensor) -> Tensor:
    """Each real token's number, [B, L]."""
    return mask.long().cumsum(-1) - 1


def nearest(source_mask: Tensor, mask: Tensor) -> Tensor:
    """The number of the token, of the real ones in source_mask [B, S], that each place of mask [B, L] is nearest to:
    round(j (m - 1) / (n - 1)) of m for place j of n, [B, L]."""
    m, n = source_mask.sum(-1, keepdim=True), mask.sum(-1, keepdim=True)
    gaps = (n - 1).clamp(min=1)
    place = (2 * places(mask) * (m - 1) + gaps).div(2 * gaps, rounding_mode="floor")
    return place.clamp(min=0, max=source_mask.shape[1] - 1)


@COPIES.register("none")
class NoCopy(nn.Module):
    """Nothing is copied."""

    def forward(self, words: Tensor, source_mask: Tensor, mask: Tensor) -> Tensor | None:
        return None


@COPIES.register("uniform")
class UniformCopy(nn.Module):
    """Position j of n copies word round(j (m - 1) / (n - 1)) of m (Gu et al. 2018)."""

    def forward(self, words: Tensor, source_mask: Tensor, mask: Tensor) -> Tensor:
        """words [B, S, h] of the source, of which source_mask [B, S] is real -> [B, L, h] for mask [B, L]."""
        real = (~source_mask).long().argsort(dim=-1, stable=True)
        index = real.gather(1, nearest(source_mask, mask))
        return words.gather(1, index[..., None].expand(-1, -1, words.shape[-1]))


@COPIES.register("soft")
class SoftCopy(nn.Module):
    """Position j of n copies a mean of all m words, weighed by softmax_i(-|j (m - 1) / (n - 1) - i| / tau), tau learnt
    (Wei et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.zeros(()))

    def forward(self, words: Tensor, source_mask: Tensor, mask: Tensor) -> Tensor:
        """words [B, S, h] of the source, of which source_mask [B, S] is real -> [B, L, h] for mask [B, L]."""
        m, n = source_mask.sum(-1, keepdim=True), mask.sum(-1, keepdim=True)
        place = places(mask) * ((m - 1) / (n - 1).clamp(min=1))
        distance = (place[:, :, None] - places(source_mask)[:, None]).abs()
        weight = (-distance * (-self.log_tau.float().clamp(min=-20)).exp()).masked_fill(
            ~source_mask[:, None], -torch.inf
        )
        return weight.softmax(-1).to(words.dtype) @ words
