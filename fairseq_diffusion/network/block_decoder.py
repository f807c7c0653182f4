"""A decoder in T blocks, each of which reads what is revealed of the translation so far and predicts all of it anew."""

from __future__ import annotations

import math
from typing import Callable, cast

import torch
from torch import Tensor, nn

from fairseq_diffusion.network.attention import Memory, attention_bias
from fairseq_diffusion.network.dropout import Dropout
from fairseq_diffusion.network.transformer import Layer, Positions, Size
from fairseq_diffusion.registry import Registry

FUSES: Registry[Callable[[int], nn.Module]] = Registry("fuse")


@FUSES.register("linear")
class LinearFuse(nn.Module):
    """U [h ; e] (Huang et al. 2022), from U = [1 0] on."""

    def __init__(self, hidden: int):
        super().__init__()
        self.map = nn.Linear(2 * hidden, hidden)
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, h: Tensor, e: Tensor, nothing: Tensor) -> Tensor:
        """h, e [B, L, h] -> [B, L, h]."""
        return self.map(torch.cat([h, e], -1))


@FUSES.register("gated")
class GatedFuse(nn.Module):
    """h + g (e - E[mask]), from g = 0 on."""

    def __init__(self, hidden: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(hidden))

    def forward(self, h: Tensor, e: Tensor, nothing: Tensor) -> Tensor:
        """h, e [B, L, h], `nothing` [h] what the mask looks like -> [B, L, h]."""
        return h + self.gate * (e - nothing)


class BlockDecoder(nn.Module):
    """K bidirectional Transformer layers in T blocks; before each block but the first, h and E[z] are fused.

    The last row of the table `words` [V + 1, h] is the mask, which is never predicted: all others are the vocabulary V,
    and the output projection too.  `scale` multiplies what stands before the first block.
    """

    def __init__(
        self,
        words: nn.Embedding,
        size: Size,
        layers: int,
        blocks: int,
        max_positions: int,
        fuse: str,
        scale: float = 1.0,
        entry_norm: bool = True,
    ):
        super().__init__()
        h = size.hidden
        self.words, self.blocks, self.mask_symbol = words, blocks, words.num_embeddings - 1
        self.positions = Positions(max_positions, h)
        self.norm = nn.LayerNorm(h) if entry_norm and not size.pre_norm else nn.Identity()
        self.dropout = Dropout(size.dropout)
        self.layers = nn.ModuleList(Layer(size, cross=True) for _ in range(layers))
        self.fuses = nn.ModuleList(FUSES[fuse](h) for _ in range(blocks - 1))
        self.last_norm = nn.LayerNorm(h) if size.pre_norm else nn.Identity()
        self.entry_scale, self.scale = scale, math.sqrt(h)

    @property
    def vocabulary(self) -> Tensor:
        """Rows that may be predicted, [V, h]."""
        return self.words.weight[: self.mask_symbol]

    def memory(self, source: Tensor, mask: Tensor) -> list[Memory]:
        """Each layer's keys and values of the encoded source [S, T, h]."""
        bias = attention_bias(mask, source.dtype)
        return [cast(Layer, layer).remember(source, bias) for layer in self.layers]

    def enter(self, z: Tensor, mask: Tensor, copied: Tensor | None) -> Tensor:
        """h_0 [N, L, h] of z_0 [N, L]; what is `copied` [N, L, h] from the source stands where z_0 is masked."""
        x = self.words(z)
        if copied is not None:
            x = x + copied * (z == self.mask_symbol)[..., None].to(copied.dtype)
        return self.norm(self.dropout(self.entry_scale * x + self.positions(mask)))

    def fuse(self, s: int, h: Tensor, z: Tensor) -> Tensor:
        """h_(s-1) [N, L, h] of the block before, with what z_(s-1) [N, L] shows; s = 2 ... T."""
        nothing = self.scale * self.words.weight[self.mask_symbol]
        return self.fuses[s - 2](h, self.scale * self.words(z), nothing)

    def block(self, s: int, h: Tensor, mask: Tensor, memory: list[Memory]) -> Tensor:
        """h_s [N, L, h]; s = 1 ... T, mask [N, L] true at real positions."""
        each, bias = len(self.layers) // self.blocks, attention_bias(mask, h.dtype)
        for layer, source in list(zip(self.layers, memory))[(s - 1) * each : s * each]:
            h = layer(h, bias, source)
        return h

    def read(self, h: Tensor) -> Tensor:
        """h_s as the output projection sees it."""
        return self.last_norm(h)
