"""Score entropy (Lou et al. 2024) for any kernel, without the B x L x V scores.

Going back from y_t, the process jumps to the word k at the rate R_k s_k.  R_k is the rate at which k becomes y_t on the
way forward, and the score s_k is q(y_t = k) / q(y_t).  With weights w_j for what y_0 may be, over all words j,

    s_k = sum_j w_j q(y_t = k | y_0 = j) / q(y_t | y_0 = j)

is the true score where w_j = p(y_0 = j | y_t).  With r_k the score where y_0 is known, the loss is

    sum over words k other than y_t  R_k (s_k - r_k log s_k + r_k (log r_k - 1))

It is 0 at the true y_0, and grows the more the scores are off.  Where w adds up to 1, its integral over time is the
variational bound in continuous time; free weights learn to.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fairseq_diffusion.kernels.portable import chunk_rows
from fairseq_diffusion.objective.token_bound import NEVER, log
from fairseq_diffusion.process.token_kernel import TokenKernel

LEAST = 1e-12  # of a share that is kept: there is nothing left of a word in practice, and no division by 0


class Moments(NamedTuple):
    """N positions at a time: what is there, what was, the share kept, and how fast it falls."""

    y_t: Tensor
    y_0: Tensor
    a: Tensor
    slope: Tensor  # -da/dt

    def of(self, part: slice) -> Moments:
        return Moments(*(x[part] for x in self))


def score_entropy(x: Tensor, table: Tensor, rows: Moments, kernel: TokenKernel, normalised: bool) -> Tensor:
    """The loss [N] for estimates x [N, d] read against table [V, d], all fp32.

    w is softmax(x T^T) if `normalised`, else exp(x T^T) / V.  0 where y_t can only be y_0.
    """
    size = chunk_rows(len(table), x.device, x.shape[1])
    with torch.autocast(x.device.type, enabled=False):
        parts = [slice(i, i + size) for i in range(0, max(len(x), 1), size)]
        losses = [checkpoint(_chunk, x[p], table, rows.of(p), kernel, normalised, use_reentrant=False) for p in parts]
        return torch.cat(losses)


def _chunk(x: Tensor, table: Tensor, rows: Moments, kernel: TokenKernel, normalised: bool) -> Tensor:
    words = torch.arange(len(table), device=x.device)
    drawn = kernel.uniform(len(table)).to(x)
    here, hidden = words == rows.y_t[:, None], (rows.y_t == kernel.mask)[:, None]
    a = rows.a.clamp(min=LEAST)
    shares, rates = kernel.until(a), kernel.rates(a, rows.slope)
    (kept, replaced, masked), (to_word, to_mask) = (
        [share.to(x)[:, None] for share in group] for group in (shares, rates)
    )
    other = torch.where(hidden, masked, replaced * (here * drawn).sum(-1, keepdim=True))  # q(y_t | y_0 = j), j not y_t
    possible = other > 0
    rate = torch.where(hidden, to_mask, to_word / kernel.size).masked_fill(~possible, 0.0)
    other = other.masked_fill(~possible, 1.0)  # so that no gradient is nan
    same = torch.where(hidden, other, kept + other)  # j = y_t

    def log_scores(log_w: Tensor) -> Tensor:
        log_w_over_q = log_w - log(torch.where(here, same, other))
        anything = log(replaced * drawn) + log_w_over_q.logsumexp(-1, keepdim=True)
        return torch.logaddexp(log(kept) + log_w - log(other), anything)

    logits = x @ table.T
    log_w = logits.log_softmax(-1) if normalised else logits - log(torch.full_like(logits[:, :1], len(table)))
    score = log_scores(log_w)
    true = log_scores(torch.where(words == rows.y_0[:, None], 0.0, NEVER))
    loss = rate * (score.exp() - true.exp() * (score - true + 1))
    return loss.masked_fill(here, 0.0).sum(-1)
