"""What the network's output means; everything downstream sees the clean estimate only.

That is x_0-hat, or where words are expected a vector o with p(y) = softmax(o E^T), whose x_0-hat is sum_y p(y) E[y]."""

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


# the output is the estimate as it is, here o; what that means is the state's to know
PREDICTIONS.register("expected")(x_0)


@PREDICTIONS.register("posterior")
def posterior(output: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """o = output + alpha / sigma^2 x_t, [B, L, D]: what x_t says of each word by itself need not be learnt, where all
    rows have one norm (Gulrajani and Hashimoto 2023, section 3)."""
    level = level.to(x_t)
    return output + (level.alpha / level.sigma.square())[..., None] * x_t


EXPECTED = ("expected", "posterior")  # whose estimates say how probable words are
