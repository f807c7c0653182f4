"""The source encoder, run once a sentence."""

from __future__ import annotations

from torch import Tensor, nn

from fairseq_diffusion.network.transformer import Layer, Positions


class Encoder(nn.Module):
    """Embeddings plus learned positions, Transformer layers, final LayerNorm."""

    def __init__(
        self,
        vocabulary: int,
        hidden: int,
        inner: int,
        heads: int,
        layers: int,
        dropout: float,
        max_positions: int,
        activation: str = "gelu",
        pre_norm: bool = False,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        self.positions = Positions(max_positions, hidden)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(hidden, inner, heads, dropout, activation, pre_norm) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens [B, S], mask [B, S] true at real tokens -> [B, S, h]."""
        x = self.dropout(self.embedding(tokens) + self.positions(mask))
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)
