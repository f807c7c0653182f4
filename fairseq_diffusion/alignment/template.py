"""Templates: some words of a translation, in their order, with gaps between them for others; and where they stand.

"___ dog ___ snow ." is <s> dog snow . </s> with gaps before dog and before snow, where any number of other words may
stand, also none.  Elsewhere words stand side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.errors import UserError

GAP = -1  # in a row of tokens, where there may be other words


class Template(NamedTuple):
    """Templates of S sentences, of up to M tokens, <s> and </s> included."""

    tokens: Tensor  # [S, M], padded on the right
    gap: Tensor  # [S, M], true where other words may stand before a token
    size: Tensor  # [S] tokens, so the positions of the shortest translation

    @classmethod
    def of(cls, rows: Tensor, bos: int) -> Template:
        """Rows [S, R] of words and gaps with </s> and then zeros behind."""
        word = rows > 0
        order = (~word).long().argsort(dim=-1, stable=True)[:, : int(word.sum(-1).max())]
        behind_gap = F.pad(rows[:, :-1] == GAP, (1, 0))
        tokens, gap = (x.gather(1, order) for x in (rows.clamp(min=0), behind_gap))
        return cls(F.pad(tokens, (1, 0), value=bos), F.pad(gap, (1, 0)), word.sum(-1) + 1)

    @property
    def rigid(self) -> Tensor:
        """Which have no gap at all, [S]."""
        return ~self.gap.any(-1)

    @property
    def open(self) -> Tensor:
        """Which are nothing but a gap, [S]."""
        return (self.size == 2) & ~self.rigid

    def select(self, sentences: Tensor) -> Template:
        """Those of the sentences numbered [N]."""
        return Template(*(x[sentences] for x in self))

    def each(self, candidates: int) -> Template:
        """The same for each of K candidates of a sentence, [S K]."""
        return Template(*(x.repeat_interleave(candidates, 0) for x in self))

    def at(self, positions: int) -> Tensor:
        """The tokens to look up at each of L positions, [S, L, M]."""
        return self.tokens[:, None].expand(-1, positions, -1)


class Known(NamedTuple):
    """Words that stand at their places from the start."""

    tokens: Tensor  # [..., L], -1 where a word is to be predicted
    log_p: Tensor  # [..., L], of the words by what has placed them; 0 elsewhere, and at the ends


def known_words(log_p: Tensor, template: Template, size: Tensor) -> Known:
    """N templates at their most probable places, by log_p [N, L, M] of the tokens at each position, in N sentences of
    `size` [N] positions.  Of the ends those are known that have no gap beside them."""
    place = most_probable_places(log_p, template, size)
    token = torch.arange(place.shape[1], device=place.device)
    end, last = (token == 0) | (token == template.size[:, None] - 1), template.size[:, None] - 1
    beside_gap = torch.where(token == 0, template.gap[:, 1:2], template.gap.gather(1, last))
    words = template.tokens.masked_fill(end & beside_gap, GAP)
    p = log_p.gather(1, place.clamp(min=0)[:, None])[:, 0].masked_fill(end, 0)
    index = place.masked_fill(place < 0, log_p.shape[1])  # a place behind the others takes the padding
    room = words.new_full((len(log_p), log_p.shape[1] + 1), GAP), p.new_zeros(len(log_p), log_p.shape[1] + 1)
    return Known(*(empty.scatter(1, index, part)[:, :-1] for empty, part in zip(room, (words, p))))


def most_probable_places(log_p: Tensor, template: Template, size: Tensor) -> Tensor:
    """Where each token of N templates stands, [N, M]; -1 in the padding.

    Of all placements with <s> at position 0 and </s> at the last of `size` [N], that for which the sum of log_p
    [N, L, M] is largest: best_m(j) = log p(y_m at j) + max_i best_(m-1)(i), over i < j behind a gap, else i = j - 1.
    """
    position, last = torch.arange(log_p.shape[1], device=log_p.device), size[:, None] - 1
    word = log_p.double().masked_fill(((position == 0) | (position >= last))[..., None], -torch.inf)
    end = torch.where(position == last, 0.0, -torch.inf).double()
    best = torch.where(position == 0, 0.0, -torch.inf).double().expand(len(log_p), -1)
    came = []
    for m in range(1, template.tokens.shape[1]):
        gap, sooner = template.gap[:, m, None], best.cummax(-1)
        before, at = torch.where(gap, sooner.values, best), torch.where(gap, sooner.indices, position)
        came.append(F.pad(at[:, :-1], (1, 0)))
        score = torch.where((template.size == m + 1)[:, None], end, word[..., m])
        best = F.pad(before[:, :-1], (1, 0), value=-torch.inf) + score
    here, found = last, []
    for m in range(len(came), 0, -1):
        real = (m < template.size)[:, None]
        found.append(torch.where(real, here, -1))
        here = torch.where(real, came[m - 1].gather(1, here), here)
    return torch.cat([torch.zeros_like(here), *found[::-1]], 1)


def check_room(needed: Tensor, found: Tensor) -> None:
    """A template, and a beam of different lengths, needs as many positions [S] as are `found` [S], or fewer."""
    if (lacking := needed > found).any():
        row = int(lacking.long().argmax())
        raise UserError(
            f"a template takes {int(needed[row])} positions with both ends and all lengths to try, but this model has "
            f"room for {int(found[row])} here; shorten the template, or try fewer lengths"
        )
