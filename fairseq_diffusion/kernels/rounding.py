"""Rounding vectors to the rows of a table, without the N x V logits."""

from __future__ import annotations

from typing import Iterator

import torch
from torch import Tensor

from fairseq_diffusion.kernels.chunks import chunk_rows


def round_to_rows(x: Tensor, table: Tensor, banned: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """argmax_v softmax(x T^T)_v and its log-probability, for x [N, D], table [V, D] -> [N], [N]; fp32.

    Rows numbered in `banned` are in the softmax, but never the answer.
    """
    pieces = [(*logits.max(-1), partition) for logits, partition in _logits(x, table, banned)]
    best, tokens, partition = (torch.cat(column) for column in zip(*pieces))
    return tokens, best - partition


def top_rows(x: Tensor, table: Tensor, count: int, banned: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `count` likeliest words under softmax(x T^T), best first, and their log-probabilities, both [N, count]; fp32.

    A smaller table gives all it has.  Words that are equally likely come in any order, where rounding takes the first.
    """
    count = min(count, len(table))
    pieces = [(*logits.topk(count, -1), partition) for logits, partition in _logits(x, table, banned)]
    best, tokens, partition = (torch.cat(column) for column in zip(*pieces))
    return tokens, best - partition[:, None]


@torch.no_grad()
def _logits(x: Tensor, table: Tensor, banned: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """x T^T [n, V], -inf where banned, and its log-partition [n] with those; chunk by chunk."""
    table = table.float()
    for chunk in x.split(chunk_rows(len(table), x.device)):
        with torch.autocast(x.device.type, enabled=False):
            logits = chunk.float() @ table.T
        partition = logits.logsumexp(-1)
        yield logits if banned is None else logits.index_fill_(1, banned, -torch.inf), partition
