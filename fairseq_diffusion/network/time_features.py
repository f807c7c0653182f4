"""Random Fourier features of the diffusion time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fairseq_diffusion.network.transformer import parameter_dtype
from fairseq_diffusion.process.precision import KeepsPrecision


class Frequencies(KeepsPrecision):
    """t -> [sin 2 pi t W, cos 2 pi t W] W fixed, Gaussian of standard deviation 16; fp32 whatever surrounds it."""

    W: Tensor

    def __init__(self, count: int, scale: float = 16.0):
        super().__init__()
        self.register_buffer("W", torch.randn(count) * scale)

    def forward(self, t: Tensor) -> Tensor:
        """t [B] -> [B, 2 count]."""
        angle = 2 * math.pi * t.to(self.W)[:, None] * self.W
        return torch.cat([angle.sin(), angle.cos()], -1)


class TimeFeatures(nn.Module):
    """Fourier features through a two-layer map, one vector a sentence."""

    def __init__(self, hidden: int, count: int = 128):
        super().__init__()
        self.frequencies = Frequencies(count)
        self.map = nn.Sequential(nn.Linear(2 * count, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, t: Tensor) -> Tensor:
        """t [B] -> [B, h]."""
        return self.map(self.frequencies(t).to(parameter_dtype(self.map)))
