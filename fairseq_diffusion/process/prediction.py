"""What the network's output means; everything downstream sees the clean prediction x_0-hat only."""

from __future__ import annotations

from typing import Callable

from torch import Tensor

from fairseq_diffusion.process.level import Level
from fairseq_diffusion.registry import Registry

Prediction = Callable[[Tensor, Tensor, Level], Tensor]
PREDICTIONS: Registry[Prediction] = Registry("prediction")


@PREDICTIONS.register("x_0")
def x_0(output: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """The network's output is x_0 itself, [B, L, D]."""
    return output


@PREDICTIONS.register("v")
def v(output: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """v = alpha eps - sigma x_0 (Salimans & Ho 2022, appendix D), hence x_0 = alpha x_t - sigma v, [B, L, D]."""
    level = level.to(x_t)
    return level.alpha[..., None] * x_t - level.sigma[..., None] * output
