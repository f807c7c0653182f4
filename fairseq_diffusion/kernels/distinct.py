"""The different words of a batch, each once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distinct(NamedTuple):
    """Words, each once, and what is to be read where."""

    words: Tensor  # [n], n at most the number of tokens
    real: Tensor | None  # [n], false where `words` is filled up; None: nowhere
    place: Tensor  # in the shape of the tokens, which of the words each is; 0 outside their mask


def distinct(tokens: Tensor, mask: Tensor) -> Distinct:
    """The different tokens [...] where `mask` [...] is true.  A GPU is not waited for: their number stays there."""
    if tokens.device.type == "cpu":
        words, place = tokens[mask].unique(return_inverse=True)
        return Distinct(words, None, torch.zeros_like(tokens).masked_scatter_(mask, place))
    return without_waiting(tokens, mask)


def without_waiting(tokens: Tensor, mask: Tensor) -> Distinct:
    """As many words as there are tokens, real ones first."""
    outside = torch.iinfo(tokens.dtype).max  # sorted behind all words
    ordered, order = tokens.masked_fill(~mask, outside).flatten().sort()
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    rank = first.cumsum(0) - 1
    words = torch.full_like(ordered, outside).scatter_(0, rank, ordered)  # equal tokens write equal values
    real = words != outside
    place = torch.empty_like(rank).scatter_(0, order, rank).view(tokens.shape).where(mask, 0)
    return Distinct(words.where(real, 0), real, place)
