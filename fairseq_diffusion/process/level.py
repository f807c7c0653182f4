"""How much signal and noise a corrupted state holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_ALPHA = 2.0**-25  # what one rounding of sigma in fp64 makes of 0 is half of it


@dataclass(frozen=True)
class Level:
    """All coefficients of x_t = alpha x_0 + sigma eps; each broadcasts to [B, L]."""

    alpha: Tensor
    sigma: Tensor

    @classmethod
    def variance_preserving(cls, sigma: Tensor) -> Level:
        """alpha^2 + sigma^2 = 1, without the cancellation of 1 - sigma^2 near sigma = 1.

        A sigma that is 1 but for rounding is 1: processors round a cosine differently, and solvers ask whether there
        is any signal at all.
        """
        alpha = ((1 - sigma) * (1 + sigma)).sqrt()
        return cls(alpha.masked_fill(alpha < LEAST_ALPHA, 0), sigma)

    @property
    def half_log_snr(self) -> Tensor:
        """lambda = log(alpha / sigma), in the dtype of the coefficients: -inf is pure noise, +inf clean data."""
        return self.alpha.log() - self.sigma.log()

    def __getitem__(self, index: int | slice) -> Level:
        """One of a table of M levels, or some of them."""
        return Level(self.alpha[index], self.sigma[index])

    def of(self, length: int) -> Level:
        """Of the first positions, [length], if each has its own; those behind the last share its."""
        if not self.alpha.dim():
            return self
        place = torch.arange(length).clamp(max=len(self.alpha) - 1)
        return Level(self.alpha[place], self.sigma[place])

    def to(self, like: Tensor) -> Level:
        """The same level in the device and dtype of `like`."""
        return Level(self.alpha.to(like), self.sigma.to(like))

    def mix(self, x_0: Tensor, eps: Tensor) -> Tensor:
        """alpha x_0 + sigma eps for x_0, eps [B, L, D]."""
        level = self.to(x_0)
        return level.alpha[..., None] * x_0 + level.sigma[..., None] * eps


def times(values: Tensor | float | Sequence[float]) -> Tensor:
    """Diffusion times, always fp64: schedules are smooth in t, and half precision is not."""
    return torch.as_tensor(values, dtype=torch.float64)
