"""The source encoder, run once a sentence."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fairseq_diffusion.network.attention import attention_bias
from fairseq_diffusion.network.dropout import Dropout
from fairseq_diffusion.network.transformer import Layer, Positions, Size


def own_words(vocabulary: int, hidden: int) -> nn.Embedding:
    """A table of the encoder's own."""
    words = nn.Embedding(vocabulary, hidden)
    nn.init.normal_(words.weight, std=hidden**-0.5)
    return words


class Borrowed(nn.Module):
    """A table that belongs to another part, under whose name alone it is saved."""

    def __init__(self, owner: nn.Module):
        super().__init__()
        self.owner = (owner,)  # out of sight in a tuple: under a second name averages would move it twice

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, S] -> [B, S, h]."""
        return self.owner[0](tokens)


class SharedWords(nn.Module):
    """The vectors that a state embeds the target's words in, projected to the encoder's width: one table for both
    sides."""

    def __init__(self, state: Any, hidden: int):
        super().__init__()
        # Out of sight in a tuple: the table belongs to `state`, and under a second name averages would move it twice.
        self.owner = (state,)
        self.project = nn.Linear(state.dim, hidden, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, S] -> [B, S, h]."""
        return self.project(self.owner[0].embed(tokens).to(self.project.weight.dtype))


class Encoder(nn.Module):
    """Embeddings, times `scale`, plus learned positions; Transformer layers; a LayerNorm if `last_norm`.

    With `reads_length` every position also gets a learned vector of the source's number of tokens.
    """

    def __init__(
        self,
        embedding: nn.Module,
        size: Size,
        layers: int,
        max_positions: int,
        scale: float = 1.0,
        last_norm: bool = True,
        reads_length: bool = False,
    ):
        super().__init__()
        self.hidden, self.embedding, self.scale = size.hidden, embedding, scale
        self.positions = Positions(max_positions, size.hidden)
        self.lengths = own_words(max_positions, size.hidden) if reads_length else None
        self.dropout = Dropout(size.dropout)
        self.layers = nn.ModuleList(Layer(size) for _ in range(layers))
        self.norm = nn.LayerNorm(size.hidden) if last_norm else nn.Identity()

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens [B, S], mask [B, S] true at real tokens -> [B, S, h]."""
        x = self.scale * self.embedding(tokens) + self.positions(mask)
        if self.lengths is not None:
            x = x + self.lengths(mask.sum(-1, keepdim=True) - 1)
        x = self.dropout(x)
        bias = attention_bias(mask, x.dtype)
        for layer in self.layers:
            x = layer(x, bias)
        return self.norm(x)
