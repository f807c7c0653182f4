"""Target length as a sum of durations: how many of the target's words stand for each token of the source.

Token j has a distribution p_j over 0 .. K - 1 words, and e words belong to none (in the IBM models to an empty one):

    length = 2 + e + f_1 + ... + f_S,     f_j ~ p_j,   P(e) = (1 - r) r^e

The two are <s> and </s>.  All are independent, so the length has their convolution as its distribution, computed in log
space.  Every length from 2 on is possible.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.network.length import SHORTEST, LengthHead
from fairseq_diffusion.network.source_copy import places

FREE_LOG_ODDS = -4.0  # of one more word that belongs to no token, before training: r is about 2%


class DurationHead(LengthHead):
    """A map of each encoder state to the logits of its token's duration; the lengths are those of `absolute`."""

    def __init__(self, hidden: int, durations: int, grad: bool, longest: int, length_map: str = "mlp"):
        super().__init__(hidden, durations, "absolute", grad, longest, length_map)
        self.classes = longest + 1
        self.free = nn.Parameter(torch.tensor(FREE_LOG_ODDS))

    def forward(self, source: Tensor, mask: Tensor) -> Tensor:
        """Encoded source [B, S, h], mask [B, S] -> log-probabilities of the lengths 0 .. `longest`, [B, C] in fp32;
        what they sum to less than 1 is that of longer ones."""
        log_p = self.each(source)
        none = F.pad(log_p.new_zeros(1), (0, log_p.shape[-1] - 1), value=-torch.inf)
        log_p = torch.where(mask[..., None], log_p, none)
        words = torch.arange(self.classes - SHORTEST, device=log_p.device)
        total = self._free(words).expand(len(mask), -1)
        for duration in log_p.unbind(1):
            total = convolved(total, duration)
        return F.pad(total, (SHORTEST, 0), value=-torch.inf)

    def each(self, source: Tensor) -> Tensor:
        """Encoded source [B, S, h] -> log-probabilities of each token's durations, [B, S, K] in fp32."""
        return self.map(source if self.grad else source.detach()).float().log_softmax(-1)

    def _free(self, words: Tensor) -> Tensor:
        """Log-probabilities of numbers of words that belong to no token."""
        free = self.free.float()
        return F.logsigmoid(-free) + words * F.logsigmoid(free)

    def aligned(self, source: Tensor, mask: Tensor, durations: Tensor) -> Tensor:
        """-log p [B] of the durations [B, S] of the source's real tokens, in their order whatever the padding; words
        beyond the longest duration count as those of no token."""
        log_p = self.each(source)
        true = durations.gather(1, places(mask).clamp(min=0)).masked_fill(~mask, 0)
        known = true.clamp(0, log_p.shape[-1] - 1)
        chosen = log_p.gather(-1, known[..., None])[..., 0].masked_fill(~mask, 0)
        return -chosen.sum(-1) - self._free((true - known).clamp(min=0).sum(-1))


def convolved(total: Tensor, durations: Tensor) -> Tensor:
    """Log-probabilities [B, W] of sums below W, and [B, K] of durations -> those of the sums with one of them added."""
    more = durations.shape[-1] - 1
    before = F.pad(total, (more, 0), value=-torch.inf).unfold(-1, more + 1, 1)
    return (before + durations.flip(-1)[:, None]).logsumexp(-1)
