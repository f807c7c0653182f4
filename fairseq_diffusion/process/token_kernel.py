"""How words are corrupted: one kernel with two numbers, and the way back from it.

With the probability a a word is kept; of what is not kept, a share is hidden behind the mask symbol, and the rest is
replaced by words drawn uniformly from K:

    q(y_t | y_0) = a [y_t = y_0] + b / K [y_t is one of the K] + m [y_t is the mask],  m = share (1 - a),  a + b + m = 1

A share of 1 is D3PM's absorbing kernel (Austin et al. 2021), 0 multinomial diffusion (Hoogeboom et al. 2021), and
between them lies mask-and-replace (Gu et al. 2022).  From a time s to a later t the kernel is of the same form,

    a' = a_t / a_s,   m' = 1 - (1 - m_t) / (1 - m_s),   b' = 1 - a' - m'
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn


class Shares(NamedTuple):
    """What becomes of a word, the three numbers of a kernel; they add up to 1."""

    kept: Tensor
    replaced: Tensor
    hidden: Tensor

    def of(self, change: Callable[[Tensor], Tensor]) -> Shares:
        return Shares(*map(change, self))


class TokenKernel(nn.Module):
    """The kernel on a dictionary, of which some words may be drawn."""

    drawn: Tensor  # [V], true at the K words that a corrupted one may become
    words: Tensor  # [K], their numbers

    def __init__(self, mask_share: float, drawn: Tensor, mask: int):
        """`drawn` [V] for every number of the dictionary, the mask's too; `mask` is -1 where nothing is hidden."""
        super().__init__()
        self.mask_share, self.mask = mask_share, mask
        self.register_buffer("drawn", drawn, persistent=False)
        self.register_buffer("words", drawn.nonzero()[:, 0], persistent=False)

    @property
    def size(self) -> int:
        """K."""
        return len(self.words)

    def uniform(self, count: int) -> Tensor:
        """1 / K at the words that may be drawn, 0 at others, of the first `count` of the dictionary, in fp64."""
        return self.drawn[:count].double() / self.size

    def until(self, a: Tensor) -> Shares:
        """From clean words to a time at which a of them are kept."""
        return Shares(a, (1 - self.mask_share) * (1 - a), self.mask_share * (1 - a))

    def between(self, a_s: Tensor, a_t: Tensor) -> Shares:
        """From a time s to a later t."""
        m_s, m_t = self.until(a_s).hidden, self.until(a_t).hidden
        hidden = (m_t - m_s) / (1 - m_s)
        kept = a_t / a_s
        replaced = torch.zeros_like(kept) if self.mask_share == 1 else (1 - kept - hidden).clamp(min=0)  # never rounded
        return Shares(kept, replaced, hidden)

    def rates(self, a: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """How fast words are replaced, and hidden, where a of them are kept and a falls by `slope` = -da/dt."""
        to_mask = self.mask_share * slope / (1 - self.until(a).hidden)
        return slope / a - to_mask, to_mask

    def word(self, u: Tensor) -> Tensor:
        """Uniform u in (0, 1), in fp64 -> one of the K words."""
        return self.words[(u * self.size).long().clamp(max=self.size - 1)]  # u may have become 1 by rounding

    def noise(self, u: Tensor) -> Tensor:
        """Uniform u in (0, 1), in fp64 -> what a word that is not kept becomes."""
        if self.mask_share == 1:
            return torch.full_like(u, self.mask, dtype=torch.long)
        rest = (u - self.mask_share) / (1 - self.mask_share)
        return torch.where(u < self.mask_share, self.mask, self.word(rest.clamp(min=0)))

    def stays_hidden(self, a_s: Tensor, a_t: Tensor, u: Tensor) -> Tensor:
        """Whether a word hidden at t is hidden at s, s < t, by uniform u; it is with probability m_s / m_t."""
        return u * self.until(a_t).hidden < self.until(a_s).hidden

    def back(self, y_t: Tensor, y_0: Tensor, a_s: Tensor, a_t: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """A draw from q(y_s | y_t, y_0), s < t, by independent uniform u and v in (0, 1), all of one shape.

        A hidden word that does not stay hidden is drawn from q(y_s | y_0, not hidden).  A word that is seen was it, was
        y_0, or was any of the K, in proportion to

            a' (K a_s [y_t = y_0] + b_s),   b' a_s,   b' b_s

        Where none of it is possible, since y_t is none of the K, or nothing was ever replaced, y_t stays.
        """
        before, step = self.until(a_s), self.between(a_s, a_t)
        anything = self.word(v)
        shown = torch.where(v * (before.kept + before.replaced) < before.kept, y_0, self.word(self._left_of(v, before)))
        unhidden = torch.where(self.stays_hidden(a_s, a_t, u), y_t, shown)
        stays = step.kept * (self.size * before.kept * (y_t == y_0) + before.replaced)
        clean, other = step.replaced * before.kept, step.replaced * before.replaced
        u = u * (stays + clean + other)
        seen = torch.where(u <= stays, y_t, torch.where(u <= stays + clean, y_0, anything))
        return torch.where(y_t == self.mask, unhidden, torch.where(self.drawn[y_t], seen, y_t))

    def _left_of(self, v: Tensor, before: Shares) -> Tensor:
        """What is left of a uniform v that was not below a_s / (a_s + b_s), uniform again."""
        share = before.kept / (before.kept + before.replaced)
        return ((v - share) / (1 - share)).nan_to_num(0.0).clamp(min=0)
