"""Rounding vectors to the rows of a table, without the N x V logits.

Logits are x T^T + b.  With b = -|T|^2 / 2 the likeliest row is the nearest one.  Rows numbered in `banned` are in the
softmax, but never the answer.  With `keys` the result is a sample of the softmax, the likeliest row under Gumbel noise.
Of equally likely rows the first is taken.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.kernels import choice, launch
from fairseq_diffusion.kernels.noise import gumbel
from fairseq_diffusion.kernels.portable import best_of, log_sum, products


class Truncation(NamedTuple):
    """Which rows may be drawn: the k likeliest (0: all), of them the likeliest until their probabilities reach p."""

    k: int = 0
    p: float = 1.0

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits [n, V] with -inf for rows that may not."""
        if self.k:
            least = logits.topk(min(self.k, logits.shape[-1]), -1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.p < 1:
            best, order = logits.sort(dim=-1, descending=True, stable=True)
            before = best.softmax(-1).cumsum(-1).roll(1, -1)
            before[:, 0] = 0
            logits = torch.empty_like(logits).scatter_(-1, order, best.masked_fill(before >= self.p, -torch.inf))
        return logits


ALL = Truncation()


@torch.no_grad()
def round_to_rows(
    x: Tensor, table: Tensor, banned: Tensor | None = None, bias: Tensor | None = None, keys: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The likeliest row and its log-probability, for x [N, D], table [V, D], bias [V], keys [N] -> [N], [N]; fp32."""
    if choice.uses_triton(x, table):
        found = launch.scan(x, table, banned=banned, bias=bias, keys=keys, best=True, total=True)
        return found.word, found.logit - found.lse
    pieces = []
    for rows, logits, others in _logits(x, table, banned, bias):
        peak, word, logit = _winner(logits, len(table), None if keys is None else keys[rows])
        partition = log_sum(logits, peak)
        pieces.append((word, logit - (partition if others is None else torch.logaddexp(partition, others))))
    words, log_p = (torch.cat(column) for column in zip(*pieces))
    return words, log_p


@torch.no_grad()
def best_rows(
    x: Tensor,
    table: Tensor,
    banned: Tensor | None = None,
    bias: Tensor | None = None,
    keys: Tensor | None = None,
    truncation: Truncation = ALL,
    mask: Tensor | None = None,
) -> Tensor:
    """The likeliest row alone, [N]: cheaper than with its log-probability.  Portable where samples are truncated.

    Outside `mask` [N] the result has no meaning; on a CPU, and in Triton, it is not computed there.
    """
    if truncation == ALL and choice.uses_triton(x, table):
        return launch.scan(x, table, banned=banned, bias=bias, keys=keys, mask=mask, best=True).word
    if mask is not None and x.device.type == "cpu":
        inside = mask.nonzero()[:, 0]
        found = best_rows(x[inside], table, banned, bias, None if keys is None else keys[inside], truncation)
        return found.new_zeros(len(mask)).index_put((inside,), found)
    words = []
    for rows, logits, _ in _logits(x, table, banned, bias, total=False):
        words.append(_winner(truncation(logits), len(table), None if keys is None else keys[rows])[1])
    return torch.cat(words)


@torch.no_grad()
def top_rows(x: Tensor, table: Tensor, count: int, banned: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `count` likeliest words under softmax(x T^T), best first, and their log-probabilities, both [N, count]; fp32.

    A smaller table gives all it has.  Words that are equally likely come in any order, where rounding takes the first.
    """
    count, pieces = min(count, len(table)), []
    for _, logits, others in _logits(x, table, banned):
        best, words = logits[:, : len(table)].topk(count, -1)
        partition = log_sum(logits, best[:, 0])
        partition = partition if others is None else torch.logaddexp(partition, others)
        pieces.append((words, best - partition[:, None]))
    words, log_p = (torch.cat(column) for column in zip(*pieces))
    return words, log_p


def _logits(
    x: Tensor, table: Tensor, banned: Tensor | None, bias: Tensor | None = None, total: bool = True
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Chunk by chunk: which rows, their logits, -inf where banned, and the log-sum of those that were (if `total`)."""
    with torch.autocast(x.device.type, enabled=False):
        for rows, logits in products(x.float(), table.float(), None if bias is None else bias.float()):
            others = None if banned is None or not total else log_sum(own := logits[:, banned], own.amax(-1))
            yield rows, logits if banned is None else logits.index_fill_(1, banned, -torch.inf), others


def _winner(logits: Tensor, columns: int, keys: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The largest logit [n] of a row, the row that wins [n], by noise of `keys` [n] if there are any, and its logit."""
    peak, word = best_of(logits)
    if keys is None:
        return peak, word, peak
    scores = logits.clone()
    scores[:, :columns] += gumbel(keys, columns)
    word = best_of(scores)[1]
    return peak, word, logits.gather(-1, word[:, None])[:, 0]
