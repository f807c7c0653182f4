"""Words and latents side by side: a pair of tensors, and a denoiser's maps in and out for such a pair."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from fairseq_diffusion.network.time_features import TIME_FEATURES
from fairseq_diffusion.network.transformer import Size, parameter_dtype

T = TypeVar("T")


class Joint(NamedTuple):
    """Clean or corrupted words and latents, or estimates of both."""

    words: Tensor  # [..., L], of estimates [..., L, d]
    latents: Tensor  # [..., M, D]
    t: Tensor | None = None  # [...], the time of corrupted latents


def each(change: Callable[..., Tensor], *states: T) -> T:
    """The same done to a tensor or to each of a pair's, of one state or of several side by side."""
    if isinstance(states[0], Tensor):
        return cast(T, change(*states))
    parts = zip(*cast("tuple[Joint, ...]", states))
    return cast(T, Joint(*(None if part[0] is None else change(*part) for part in parts)))  # type: ignore[arg-type]


class JointEntrance(nn.Module):
    """The latents, each with a vector of its place and of their time, stand before the words."""

    def __init__(self, words: nn.Module, latents: nn.Module, count: int, size: Size):
        super().__init__()
        self.words, self.latents = words, latents
        self.time = TIME_FEATURES["fourier"](size.hidden, "silu")
        self.places = nn.Parameter(torch.randn(count, size.hidden) * size.hidden**-0.5)

    def forward(self, s_t: Joint, c: Joint | None) -> Tensor:
        """A corrupted pair, and an estimate of it or None -> [N, M + L, h]."""
        dtype = parameter_dtype(self)
        cast_c = None if c is None else (c.words.to(dtype), c.latents.to(dtype))
        words = self.words(s_t.words, cast_c and cast_c[0])
        latents = self.latents(s_t.latents.to(dtype), cast_c and cast_c[1])
        time = self.time(cast(Tensor, s_t.t)).to(dtype)[:, None]
        return torch.cat([latents + time + self.places, words], 1)


class JointExit(nn.Module):
    """[N, M + L, h] -> estimates of the words and of the M latents before them."""

    def __init__(self, words: nn.Module, latents: nn.Module, count: int):
        super().__init__()
        self.words, self.latents, self.count = words, latents, count

    def forward(self, x: Tensor) -> Joint:
        return Joint(self.words(x[:, self.count :]), self.latents(x[:, : self.count]))


def of_words(x: Any) -> Tensor:
    """The words' part of a pair, or what is of words alone."""
    return x.words if isinstance(x, Joint) else x
