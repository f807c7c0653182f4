"""The exact term of the variational bound for words, for any kernel, without the B x L x V probabilities.

With c(k) = q(y_t | y_s = k), and with w_j = p_j / q(y_t | y_0 = j), both over all words k and j, the mixture of
posteriors over the estimate p is

    p(y_s = k | y_t) = sum_j p_j q(y_s = k | y_t, y_0 = j) = c(k) (a_s w_k + b_s u(k) sum_j w_j)

where u is uniform over the words that may be drawn, and 0 for others.  The posterior itself has 1 for p at y_0.  In
their ratio c cancels, and that a hidden word stays hidden is as probable in both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fairseq_diffusion.kernels.portable import chunk_rows
from fairseq_diffusion.process.token_kernel import TokenKernel

NEVER = -1e4  # log-probability of what cannot be


class Rows(NamedTuple):
    """N positions: what is there, what was, and the shares kept at both times."""

    y_t: Tensor
    y_0: Tensor
    a_s: Tensor
    a_t: Tensor

    def of(self, part: slice) -> Rows:
        return Rows(*(x[part] for x in self))


def divergence(x: Tensor, table: Tensor, rows: Rows, kernel: TokenKernel) -> Tensor:
    """KL(q(y_s | y_t, y_0) || p(y_s | y_t)), [N], for estimates x [N, d] read against table [V, d], all fp32.

    At s = 0 it is -log p(y_0 | y_t).  0 where y_t can only be y_0, as a word that was never replaced.
    """
    size = chunk_rows(len(table), x.device, x.shape[1])
    with torch.autocast(x.device.type, enabled=False):
        parts = [slice(i, i + size) for i in range(0, max(len(x), 1), size)]
        return torch.cat([checkpoint(_chunk, x[p], table, rows.of(p), kernel, use_reentrant=False) for p in parts])


def _chunk(x: Tensor, table: Tensor, rows: Rows, kernel: TokenKernel) -> Tensor:
    words = torch.arange(len(table), device=x.device)
    u = kernel.uniform(len(table)).to(x)
    before, after, step = (
        shares.of(lambda share: share.to(x)[:, None])
        for shares in (kernel.until(rows.a_s), kernel.until(rows.a_t), kernel.between(rows.a_s, rows.a_t))
    )
    here, hidden = words == rows.y_t[:, None], (rows.y_t == kernel.mask)[:, None]
    u_t = (here * u).sum(-1, keepdim=True)  # of the word that is there
    seen_from = torch.where(hidden, after.hidden, after.kept * here + after.replaced * u_t)  # q(y_t | y_0 = j)
    seen_next = torch.where(hidden, step.hidden, step.kept * here + step.replaced * u_t)  # c(k)
    possible = seen_from > 0

    def log_mixture(log_p: Tensor) -> Tensor:
        log_w = torch.where(possible, log_p - log(seen_from), NEVER)
        anything = log(before.replaced * u) + log_w.logsumexp(-1, keepdim=True)
        return torch.logaddexp(log(before.kept) + log_w, anything)

    true = log_mixture(torch.where(words == rows.y_0[:, None], 0.0, NEVER))
    estimate = log_mixture((x @ table.T).log_softmax(-1))
    certain = ~hidden[:, 0] & (possible.sum(-1) == 1)
    return (seen_next * true.exp() * (true - estimate)).sum(-1).masked_fill(certain, 0.0)


def log(share: Tensor) -> Tensor:
    """Of 0 a finite number, so that no gradient is nan."""
    return torch.where(share > 0, share, 1.0).log().masked_fill(share <= 0, NEVER)
