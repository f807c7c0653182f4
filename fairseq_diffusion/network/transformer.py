"""Transformer layers, post-norm or pre-norm, and learned positions that padding cannot shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.network.attention import Memory, SelfAttention, SourceAttention
from fairseq_diffusion.network.dropout import Dropout
from fairseq_diffusion.registry import Registry

ACTIVATIONS: Registry[Callable[[], nn.Module]] = Registry("activation")
ACTIVATIONS.register("gelu")(nn.GELU)
ACTIVATIONS.register("relu")(nn.ReLU)
ACTIVATIONS.register("silu")(nn.SiLU)


@dataclass(frozen=True)
class Size:
    """Dimensions and style that encoder and denoiser have in common."""

    hidden: int
    inner: int
    heads: int
    dropout: float = 0.0
    activation: str = "gelu"
    pre_norm: bool = False
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0


def entry_scale(cfg: Any) -> float:
    """What vectors of words are multiplied by before the first layer, by the model's flags."""
    return math.sqrt(cfg.hidden) if cfg.scale_embeddings else 1.0


class Positions(nn.Embedding):
    """Learned positions counted over real tokens only, so that left and right padding give the same."""

    def __init__(self, count: int, hidden: int):
        super().__init__(count, hidden)
        nn.init.normal_(self.weight, std=hidden**-0.5)

    def forward(self, mask: Tensor) -> Tensor:
        """mask [B, L], true at real tokens -> [B, L, h]."""
        return super().forward((mask.long().cumsum(-1) - 1).clamp(min=0))


class AdaptiveNorm(nn.LayerNorm):
    """(1 + g) LayerNorm(x) + b, where g and b follow the time; both are 0 at the start (Peebles and Xie 2023)."""

    def __init__(self, hidden: int):
        super().__init__(hidden)
        self.change = nn.Linear(hidden, 2 * hidden)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        """x [N, L, h], the time as a vector [N, h] -> [N, L, h]."""
        g, b = self.change(F.silu(time))[:, None].chunk(2, -1)
        return torch.addcmul(b, super().forward(x), 1 + g)


class Residual(nn.Module):
    """LayerNorm(x + f(x)), or x + f(LayerNorm(x)) with `pre_norm`; `adaptive` to the time."""

    def __init__(self, size: Size, adaptive: bool = False):
        super().__init__()
        self.norm = AdaptiveNorm(size.hidden) if adaptive else nn.LayerNorm(size.hidden)
        self.dropout = Dropout(size.dropout)
        self.pre_norm, self.adaptive = size.pre_norm, adaptive

    def enter(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        return self._normed(x, time) if self.pre_norm else x

    def leave(self, x: Tensor, change: Tensor, time: Tensor | None = None) -> Tensor:
        x = x + self.dropout(change)
        return x if self.pre_norm else self._normed(x, time)

    def _normed(self, x: Tensor, time: Tensor | None) -> Tensor:
        return self.norm(x, time) if self.adaptive else self.norm(x)


class FeedForward(nn.Module):
    """Two linear layers with an activation, dropout between them."""

    def __init__(self, size: Size):
        super().__init__()
        self.up, self.down = nn.Linear(size.hidden, size.inner), nn.Linear(size.inner, size.hidden)
        self.activation = ACTIVATIONS[size.activation]()
        self.dropout = Dropout(size.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.up(x))))


class Layer(nn.Module):
    """Self-attention without a causal mask, attention to the source if `cross`, feed-forward; may be `adaptive`."""

    def __init__(self, size: Size, cross: bool = False, adaptive: bool = False):
        super().__init__()
        self.self_attention = SelfAttention(size.hidden, size.heads, size.attention_dropout)
        self.cross_attention = SourceAttention(size.hidden, size.heads, size.attention_dropout) if cross else None
        self.feed_forward = FeedForward(size)
        self.residuals = nn.ModuleList(Residual(size, adaptive) for _ in range(3 if cross else 2))

    def remember(self, source: Tensor, bias: Tensor) -> Memory:
        """What cross-attention needs of the source [S, T, h], whose attention_bias is [S, 1, 1, T]."""
        return cast(SourceAttention, self.cross_attention).remember(source, bias)

    def forward(self, x: Tensor, bias: Tensor, memory: Memory | None = None, time: Tensor | None = None) -> Tensor:
        """x [B, L, h], its attention_bias [B, 1, 1 or L, L], `memory` of the source, time [B, h] -> [B, L, h]."""
        first, *middle, last = (cast(Residual, residual) for residual in self.residuals)
        x = first.leave(x, self.self_attention(first.enter(x, time), bias), time)
        if self.cross_attention is not None and memory is not None:
            x = middle[0].leave(x, self.cross_attention(middle[0].enter(x, time), memory), time)
        return last.leave(x, self.feed_forward(last.enter(x, time)), time)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [B, L, h] over the real tokens in mask [B, L] -> [B, h]."""
    weight = mask.to(x.dtype)[..., None]
    return (x * weight).sum(1) / weight.sum(1)


def tanh_map(inside: int, hidden: int, outside: int) -> nn.Sequential:
    """Linear, tanh, linear: DINOISER's maps between embeddings and hidden states."""
    return nn.Sequential(nn.Linear(inside, hidden), nn.Tanh(), nn.Linear(hidden, outside))


def parameter_dtype(module: nn.Module) -> torch.dtype:
    """What a module computes in: fp32, or what fairseq's --fp16 and --bf16 cast it to."""
    return next(module.parameters()).dtype
