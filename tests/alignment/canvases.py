"""Tiny canvases, and random or chosen outputs of a decoder at each of their positions."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.alignment.base import Alignment, Canvas, Reading, Revealed, Symbols, Words
from fairseq_diffusion.alignment.dag import DAGAlignment
from fairseq_diffusion.alignment.paths import SearchOptions
from fairseq_diffusion.network.links import Links

BOS, PAD, EOS, UNK = range(4)
V = MASK = 6  # words 4 and 5, and the specials
SYMBOLS = Symbols(BOS, PAD, EOS, MASK)
HIDDEN = 10


def dag_of(hidden: int = HIDDEN, longest: int = 256) -> DAGAlignment:
    """A DAG with random links."""
    torch.manual_seed(0)
    return DAGAlignment(SYMBOLS, 2.0, Links(hidden, 2, 20), longest)


def paths(size: int, length: int) -> Tensor:
    """All paths of `length` vertices from the first of `size` to the last, [P, length]."""
    found = [(0, *inner, size - 1) for inner in combinations(range(1, size - 1), length - 2)]
    return torch.tensor(found, dtype=torch.long).view(len(found), length)


def targets(*sentences: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """<s> y_1 ... y_m </s> and its mask, both [B, M]."""
    width = max(map(len, sentences))
    rows = [[BOS, *words, EOS] + [PAD] * (width - len(words)) for words in sentences]
    return torch.tensor(rows), torch.tensor(rows).ne(PAD)


def outputs(canvas: Canvas, vocabulary: int = V, seed: int = 0) -> tuple[Tensor, Tensor]:
    """h [N, L, h] and the projection [V, h]."""
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(*canvas.tokens.shape, HIDDEN, generator=g)
    return h, torch.randn(vocabulary, HIDDEN, generator=g)


def predicting(tokens: Tensor, vocabulary: int = V, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same where `tokens` [N, L] are the likeliest words."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(*tokens.shape, vocabulary, generator=g)
    return F.one_hot(tokens, vocabulary) * 2 + noise, torch.eye(vocabulary)


def log_probs(h: Tensor, words: Tensor) -> Tensor:
    """log softmax(W h), [N, L, V], in fp64."""
    return (h.double() @ words.double().T).log_softmax(-1)


def predictable(part: Alignment, log_p: Tensor) -> Tensor:
    """log_p [..., V], -inf at the symbols that this alignment never predicts."""
    return log_p.index_fill(-1, torch.tensor([getattr(SYMBOLS, name) for name in part.never_predicted]), -torch.inf)


def reading(candidates: int = 1, keys: Tensor | None = None, **options: Any) -> Reading:
    return Reading(SearchOptions(**options), candidates, keys)


def total(words: Words) -> Tensor:
    """Log-probability of all words and the end, [S, K]."""
    return (words.log_p * words.mask).sum(-1) + words.end_log_p


def empty(canvas: Canvas) -> Revealed:
    return Revealed(canvas.tokens, canvas.hidden, torch.zeros_like(canvas.tokens, dtype=torch.float))


def revealing(canvas: Canvas, words: dict[tuple[int, int], int], log_p: float = -0.25) -> Revealed:
    """An empty canvas that shows some words, {(row, position): word}."""
    tokens, hidden, at = (part.clone() for part in empty(canvas)[:3])
    for place, word in words.items():
        tokens[place], hidden[place], at[place] = word, False, log_p
    return Revealed(tokens, hidden, at)
