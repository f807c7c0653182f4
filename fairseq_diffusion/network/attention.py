"""Multi-head attention on scaled_dot_product_attention, with keys and values kept once a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALIGNMENT = 16  # entries between the rows of a bias: any other a GPU copies at every call


class Memory(NamedTuple):
    """Keys and values [S, H, T, h/H] of what is attended to, and what is added to its scores, [S, 1, 1, T]."""

    keys: Tensor
    values: Tensor
    bias: Tensor


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores, for all heads: -inf where nothing is to be seen, else 0.

    Made once for all layers: of a boolean mask scaled_dot_product_attention makes it anew at every call.

    Args:
        mask: what may be seen, [S, T] by all queries, or [S, L, T] by each of L -> [S, 1, 1, T] or [S, 1, L, T].
        dtype: of the scores.
    """
    mask = mask[:, None, None] if mask.dim() == 2 else mask[:, None]
    return room_for(mask.shape, mask.device, dtype).masked_fill_(~mask, -torch.inf)


def room_for(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros of this shape, whose rows lie where a bias' rows are to."""
    return torch.zeros(*shape[:-1], (shape[-1] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT, device=device, dtype=dtype)[
        ..., : shape[-1]
    ]


def side_by_side(first: list[Memory], second: list[Memory]) -> list[Memory]:
    """Each layer's memory of T and of M vectors as one of T + M."""
    a, b = first[0].bias, second[0].bias
    bias = room_for((*a.shape[:-1], a.shape[-1] + b.shape[-1]), a.device, a.dtype)
    bias.copy_(torch.cat([a, b.to(a.dtype)], -1))
    return [
        Memory(torch.cat([one.keys, two.keys], 2), torch.cat([one.values, two.values], 2), bias)
        for one, two in zip(first, second)
    ]


class Attention(nn.Module):
    """What attention to oneself and attention to the source have in common."""

    def __init__(self, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout

    def _split(self, x: Tensor, sentences: int) -> Tensor:
        """[N, T, h] -> [S, H, N / S * T, h/H]."""
        return x.reshape(sentences, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def _attend(self, queries: Tensor, memory: Memory) -> Tensor:
        """queries [N, L, h] with N = S K: the K candidates of a sentence share its memory, as more queries to it."""
        split = self._split(queries, memory.keys.shape[0])
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(
            split, memory.keys, memory.values, attn_mask=memory.bias.to(split.dtype), dropout_p=dropout
        )
        return seen.transpose(1, 2).reshape(queries.shape)


def projections(hidden: int) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """Of queries, of keys and values, and out again, as they begin."""
    query, key_value, out = (nn.Linear(hidden, width) for width in (hidden, 2 * hidden, hidden))
    for layer in (query, key_value):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(out.bias)
    return query, key_value, out


class SourceAttention(Attention):
    """Attention of x to a memory of something else, which is made once and read often."""

    def __init__(self, hidden: int, heads: int, dropout: float):
        super().__init__(heads, dropout)
        self.query, self.key_value, self.out = projections(hidden)

    def remember(self, x: Tensor, bias: Tensor) -> Memory:
        """Memory of x [S, T, h]."""
        keys, values = self.key_value(x).chunk(2, -1)
        return Memory(self._split(keys, x.shape[0]), self._split(values, x.shape[0]), bias)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """x [S K, L, h] -> [S K, L, h]."""
        return self.out(self._attend(self.query(x), memory))


class SelfAttention(Attention):
    """Attention of x to itself, whose queries, keys and values are one product."""

    def __init__(self, hidden: int, heads: int, dropout: float):
        super().__init__(heads, dropout)
        query, key_value, self.out = projections(hidden)
        self.query_key_value = UnsetLinear(hidden, 3 * hidden)
        self.query_key_value.load_state_dict(joined(query.state_dict(), key_value.state_dict()))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [N, L, h], bias [N, 1, 1, L] -> [N, L, h]."""
        queries, keys, values = self.query_key_value(x).chunk(3, -1)
        keys, values = (self._split(part, x.shape[0]) for part in (keys, values))
        return self.out(self._attend(queries, Memory(keys, values, bias)))


class UnsetLinear(nn.Linear):
    """A linear layer that takes its weights from others, and draws none.

    ``nn.utils.skip_init`` does the same, but imports sympy, which takes as long as a short decoding.
    """

    def reset_parameters(self) -> None:
        pass


def joined(*states: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of one linear layer with the outputs of several of the same input side by side."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
