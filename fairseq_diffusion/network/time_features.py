"""The diffusion time as a vector: frequencies, then a two-layer map."""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import Tensor, nn

from fairseq_diffusion.kernels.precision import KeepsPrecision
from fairseq_diffusion.network.transformer import ACTIVATIONS, parameter_dtype
from fairseq_diffusion.registry import Registry


class Frequencies(KeepsPrecision):
    """t -> [sin 2 pi t W, cos 2 pi t W] W fixed, Gaussian of standard deviation 16; fp32 whatever surrounds it."""

    W: Tensor

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("W", torch.randn(count) * 16.0)

    def forward(self, t: Tensor) -> Tensor:
        """t [B] -> [B, 2 count]."""
        angle = 2 * math.pi * t.to(self.W)[:, None] * self.W
        return torch.cat([angle.sin(), angle.cos()], -1)


class Sinusoid(KeepsPrecision):
    """t -> [cos, sin] of 1000 t w, with w from 1 down to 1/10000 (Vaswani et al. 2017, section 3.5); fp32 always."""

    w: Tensor

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("w", 1000 * 1e4 ** -(torch.arange(count) / count), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """t [B] -> [B, 2 count]."""
        angle = t.to(self.w)[:, None] * self.w
        return torch.cat([angle.cos(), angle.sin()], -1)


class TimeFeatures(nn.Module):
    """Frequencies through a two-layer map, one vector a sentence."""

    def __init__(self, frequencies: nn.Module, width: int, inner: int, hidden: int, activation: str):
        super().__init__()
        self.frequencies = frequencies
        self.map = nn.Sequential(nn.Linear(width, inner), ACTIVATIONS[activation](), nn.Linear(inner, hidden))

    def forward(self, t: Tensor) -> Tensor:
        """t [B] -> [B, h]."""
        return self.map(self.frequencies(t).to(parameter_dtype(self.map)))


class NoTime(nn.Module):
    """The network does not know the time."""

    def __init__(self, hidden: int, activation: str):
        super().__init__()
        self.hidden = hidden

    def forward(self, t: Tensor) -> Tensor:
        """t [B] -> zeros [B, h]."""
        return torch.zeros(len(t), self.hidden, device=t.device)


TIME_FEATURES: Registry[Callable[[int, str], nn.Module]] = Registry("time features")
TIME_FEATURES.register("none")(NoTime)


@TIME_FEATURES.register("fourier")
def fourier(hidden: int, activation: str) -> TimeFeatures:
    """Random Fourier features of 128 frequencies."""
    return TimeFeatures(Frequencies(128), 2 * 128, hidden, hidden, activation)


@TIME_FEATURES.register("sinusoid")
def sinusoid(hidden: int, activation: str) -> TimeFeatures:
    """Sinusoids as wide as the hidden states, and a map four times as wide inside (Ho et al. 2020)."""
    count = hidden // 2
    return TimeFeatures(Sinusoid(count), 2 * count, 4 * hidden, hidden, activation)
