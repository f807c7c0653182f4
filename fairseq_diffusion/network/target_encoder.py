"""The encoder of a target to a fixed number of vectors; of use in training alone, as there is no target later."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.network.attention import attention_bias
from fairseq_diffusion.network.dropout import Dropout
from fairseq_diffusion.network.transformer import Layer, Positions, Size


class TargetEncoder(nn.Module):
    """M learned queries attend to the target's words, and to each other, in a few layers (Jaegle et al. 2021).

    Args:
        words: tokens [B, L] -> vectors [B, L, h].
        size, layers: of the network.
        count: M.
        dim: D, the width of what comes out.
        max_positions: the longest target.
        one_norm: whether all that comes out has the norm sqrt(D).
        hide: probability that a word is not seen in training; the first token always is.
    """

    def __init__(
        self,
        words: nn.Module,
        size: Size,
        layers: int,
        count: int,
        dim: int,
        max_positions: int,
        one_norm: bool,
        hide: float = 0.0,
    ):
        super().__init__()
        self.words, self.one_norm, self.scale, self.hide = words, one_norm, dim**0.5, hide
        self.positions = Positions(max_positions, size.hidden)
        self.dropout = Dropout(size.dropout)
        self.queries = nn.Parameter(torch.randn(count, size.hidden) * size.hidden**-0.5)
        self.layers = nn.ModuleList(Layer(size, cross=True) for _ in range(layers))
        self.norm = nn.LayerNorm(size.hidden) if size.pre_norm else nn.Identity()
        self.leave = nn.Linear(size.hidden, dim)

    def forward(self, tokens: Tensor, mask: Tensor, seen: Tensor | None = None) -> Tensor:
        """tokens [B, L], mask [B, L] true at real ones, `seen` [B, L] at those of them that are not hidden (default:
        none is) -> [B, M, D] in fp32."""
        words = self.dropout(self.words(tokens) + self.positions(mask))
        bias = attention_bias(mask if seen is None else seen, words.dtype)
        x = self.queries.expand(len(tokens), -1, -1)
        free = attention_bias(torch.ones_like(mask[:, :1]).expand(x.shape[:2]), x.dtype)
        for layer in self.layers:
            x = layer(x, free, cast(Layer, layer).remember(words, bias))
        return self.normalised(self.leave(self.norm(x)).float())

    def seen(self, mask: Tensor, keys: Tensor) -> Tensor:
        """What of targets of which mask [B, L] is real is not hidden, by keys [B]."""
        if not self.training or not self.hide:
            return mask
        kept = noise.uniform(keys, mask.shape[1]) >= self.hide
        return mask & (kept | (mask.long().cumsum(-1) == 1))

    def normalised(self, u: Tensor) -> Tensor:
        """Any vectors [..., D] as this could have made them."""
        return F.normalize(u, dim=-1) * self.scale if self.one_norm else u
