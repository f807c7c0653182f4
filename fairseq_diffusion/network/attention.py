"""Multi-head attention on scaled_dot_product_attention, with keys and values kept once a sentence."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Memory(NamedTuple):
    """Keys and values [S, H, T, h/H] of what is attended to, and which of them are real, [S, 1, 1, T]."""

    keys: Tensor
    values: Tensor
    mask: Tensor

    def select(self, sentences: Tensor) -> Memory:
        """That of the sentences numbered [N]."""
        return Memory(*(tensor.index_select(0, sentences) for tensor in self))


def attention_mask(mask: Tensor) -> Tensor:
    """[S, T] true at real tokens -> the form that attention broadcasts over heads and queries."""
    return mask[:, None, None, :]


class Attention(nn.Module):
    """Attention of x over a memory; of itself when the memory is made from x."""

    def __init__(self, hidden: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.out = nn.Linear(hidden, hidden)
        for layer in (self.query, self.key_value):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.out.bias)

    def _split(self, x: Tensor, sentences: int) -> Tensor:
        """[N, T, h] -> [S, H, N / S * T, h/H]."""
        return x.reshape(sentences, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def remember(self, x: Tensor, mask: Tensor) -> Memory:
        """Memory of x [S, T, h], of which `mask` [S, T] is real."""
        keys, values = self.key_value(x).chunk(2, -1)
        return Memory(self._split(keys, len(x)), self._split(values, len(x)), attention_mask(mask))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """x [N, L, h] with N = S K: the K candidates of a sentence share its memory, as more queries to it."""
        queries = self._split(self.query(x), len(memory.keys))
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(
            queries, memory.keys, memory.values, attn_mask=memory.mask, dropout_p=dropout
        )
        return self.out(seen.transpose(1, 2).reshape(x.shape))
