"""Tiny canvases, and what an output projection says of each of their positions."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.alignment.base import BackEnd, Canvas, Shown, Symbols, Written
from fairseq_diffusion.alignment.dag import DAGBackEnd
from fairseq_diffusion.network.links import Links

BOS, PAD, EOS, UNK = range(4)
V = MASK = 6  # words 4 and 5, and the specials
SYMBOLS = Symbols(BOS, PAD, EOS, MASK)
HIDDEN = 10


def dag_of(hidden: int = HIDDEN) -> DAGBackEnd:
    """A DAG with random links."""
    torch.manual_seed(0)
    return DAGBackEnd(SYMBOLS, 2.0, Links(hidden, 2, 20))


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


def saying(tokens: Tensor, vocabulary: int = V, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same where `tokens` [N, L] are the likeliest words."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(*tokens.shape, vocabulary, generator=g)
    return F.one_hot(tokens, vocabulary) * 2 + noise, torch.eye(vocabulary)


def log_probs(h: Tensor, words: Tensor) -> Tensor:
    """log softmax(W h), [N, L, V], in fp64."""
    return (h.double() @ words.double().T).log_softmax(-1)


def sayable(part: BackEnd, log_p: Tensor) -> Tensor:
    """log_p [..., V], -inf at what this back end never writes."""
    return log_p.index_fill(-1, torch.tensor([getattr(SYMBOLS, name) for name in part.unsaid]), -torch.inf)


def total(written: Written) -> Tensor:
    """Log-probability of all that is written, [S, K]."""
    return (written.log_p * written.said).sum(-1) + written.end_log_p


def empty(canvas: Canvas) -> Shown:
    return Shown(canvas.tokens, canvas.hidden, torch.zeros_like(canvas.tokens, dtype=torch.float))


def revealing(canvas: Canvas, words: dict[tuple[int, int], int], log_p: float = -0.25) -> Shown:
    """An empty canvas that shows some words, {(row, position): word}."""
    tokens, hidden, at = (part.clone() for part in empty(canvas)[:3])
    for place, word in words.items():
        tokens[place], hidden[place], at[place] = word, False, log_p
    return Shown(tokens, hidden, at)
