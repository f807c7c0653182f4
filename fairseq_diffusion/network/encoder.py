"""The source encoder, run once a sentence."""

from __future__ import annotations

from torch import Tensor, nn

from fairseq_diffusion.network.transformer import Layer, Positions, Size


class Encoder(nn.Module):
    """Embeddings plus learned positions, Transformer layers, final LayerNorm."""

    def __init__(self, vocabulary: int, size: Size, layers: int, max_positions: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size.hidden)
        nn.init.normal_(self.embedding.weight, std=size.hidden**-0.5)
        self.positions = Positions(max_positions, size.hidden)
        self.dropout = nn.Dropout(size.dropout)
        self.layers = nn.ModuleList(Layer(size) for _ in range(layers))
        self.norm = nn.LayerNorm(size.hidden)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens [B, S], mask [B, S] true at real tokens -> [B, S, h]."""
        x = self.dropout(self.embedding(tokens) + self.positions(mask))
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)
