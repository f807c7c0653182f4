"""Beam search over the sentences of a CTC canvas, the alignments summed out (prefix search, Graves et al. 2006).

With p_j(w) the probability of symbol w at position j = 1..L, and # the blank,

    n_t(j) = P(positions 1..j read as y_1..t, and j has the word y_t),
    b_t(j) = P(positions 1..j read as y_1..t, and j has a blank);

a word that repeats the last one stands behind a blank:

    r(j) = b_t(j) + [y_{t+1} != y_t] n_t(j),
    n_{t+1}(j) = p_j(y_{t+1}) (n_{t+1}(j - 1) + r(j - 1)),
    b_{t+1}(j) = p_j(#) (b_{t+1}(j - 1) + n_{t+1}(j - 1)),
    P(y_1..t+1, and perhaps more) = sum_j r(j - 1) p_j(y_{t+1}),   P(Y) = n_|y|(L) + b_|y|(L).

Both recurrences are sums over where the word, or the blanks behind it, began, so a word is added by two products of
matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_diffusion.alignment.beam import Places, numbered


@dataclass(frozen=True)
class Positions(Places):
    """Those of a CTC canvas; position 0, before it, is a blank.  alpha [B, K, 2, L + 1] is n and b."""

    blanks: Tensor  # [B, L + 1, L + 1], the product of p(#) behind i up to j, 0 before i

    @classmethod
    def of(cls, tokens: Tensor, log_p: Tensor, blank_log_p: Tensor, size: Tensor, blank: int) -> Positions:
        """tokens [B, L, n] listed at each position, their log-probabilities, those of blanks [B, L], and how many
        positions are real [B]; a blank that is listed is passed over."""
        real = torch.arange(tokens.shape[1], device=tokens.device) < size[:, None]
        p = log_p.double().exp().masked_fill(~real[..., None] | (tokens == blank), 0.0)
        p_blank = F.pad(blank_log_p.double().exp().masked_fill(~real, 1.0), (1, 0), value=1.0)
        at_the_end = torch.iinfo(tokens.dtype).max  # so that padding does not change the order of words
        number, words = numbered(F.pad(tokens.masked_fill(~real[..., None], at_the_end), (0, 0, 1, 0), value=blank))
        return cls(F.pad(p, (0, 0, 1, 0)), number, words, F.pad(runs(p_blank)[:, 1:], (0, 0, 0, 1)))

    @property
    def most(self) -> int:
        return self.p.shape[1] - 1

    def start(self) -> Tensor:
        b = torch.cat([torch.ones_like(self.blanks[:, 0, :1]), self.blanks[:, 0, 1:]], -1)
        return torch.stack([torch.zeros_like(b), b], 1)

    def end(self, alpha: Tensor) -> Tensor:
        return alpha[..., -1].sum(-1)

    def reach(self, alpha: Tensor, last: Tensor) -> Tensor:
        n, b = before(alpha).unbind(2)
        repeats = self.number[:, None] == last[..., None, None]
        return torch.where(repeats, b[..., None], (n + b)[..., None])

    def step(self, alpha: Tensor, repeats: Tensor, emission: Tensor) -> Tensor:
        n, b = before(alpha).unbind(2)
        n = ((b + n.masked_fill(repeats[..., None], 0.0))[..., None, :] @ runs(emission))[..., 0, :]
        return torch.stack([n, n @ self.blanks], 2)


def before(x: Tensor) -> Tensor:
    """x(j - 1) at j; nothing stands before the first."""
    return F.pad(x[..., :-1], (1, 0))


def runs(p: Tensor) -> Tensor:
    """The products p_i ... p_j [..., L, L] for i <= j, 0 elsewhere, of p [..., L]."""
    nothing = p == 0
    log_p, nothing = p.masked_fill(nothing, 1.0).log(), nothing.double()
    logs, nothings = (x.cumsum(-1)[..., None, :] - (x.cumsum(-1) - x)[..., None] for x in (log_p, nothing))
    return logs.triu().exp().masked_fill(nothings > 0, 0.0).triu()
