"""Schedule modifiers: at most one stands between the base curve and the process."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels.precision import KeepsPrecision
from fairseq_diffusion.process.curves import Curve
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.nearest import spread
from fairseq_diffusion.process.time_table import DiscreteCurve
from fairseq_diffusion.registry import Registry

LEAST_HIDDEN = 1e-12  # share of a word, so that its root has a slope


def checked(factor: float) -> float:
    """A noise factor F, if it is one."""
    if not 0 < factor < math.inf:
        raise UserError(f"the noise factor is {factor}; it multiplies the noise: give a number above 0, or 1 for none")
    return factor


class Modifier(KeepsPrecision):
    """x_t = alpha x_0 + F sigma eps, nothing else; F = 1 leaves the curve as it is.

    Subclasses change levels or the times trained on, and own what they learn as buffers.
    """

    by_words = False  # levels depend on the words
    places = 0  # positions that have levels of their own
    by_error = False  # it adapts to the distance of estimates from x_0

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = checked(factor)

    def level(
        self,
        t: Tensor,
        sigma: Tensor,
        factor: float | None = None,
        positions: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Level:
        """Level at times t, where the curve has sigma, any shape; `factor`, if given, stands for the F trained with.

        A subclass may make it depend on positions and tokens, [B, L] (see Schedule.level).
        """
        F = self.factor if factor is None else checked(factor)
        return self.with_factor(Level.variance_preserving(sigma), F)

    def with_factor(self, level: Level, F: float) -> Level:
        """F times the noise: the signal-to-noise ratio is divided by F^2, the variance is not preserved."""
        return Level(level.alpha, F * level.sigma)

    def time(self, u: Tensor, curve: Curve | DiscreteCurve) -> Tensor:
        """Training time for a uniform u in [0, 1], both [B]."""
        return u

    def weight(self, u: Tensor) -> Tensor:
        """What losses at those times weigh, [B], so that their mean over u is one over times: dt / du, in a modifier
        that draws more of some times only to estimate that mean better."""
        return torch.ones_like(u)

    def observe(self, t: Tensor, loss: Tensor, error: Tensor | None, mask: Tensor) -> None:
        """Called in training with the time [B] and the loss [B] of each sentence, and the distance of its estimate from
        x_0 at each position [B, L], if that is known; mask [B, L] is true at its words."""

    def update(self, table: Tensor, curve: Curve | DiscreteCurve) -> None:
        """Adapt to the embedding table [V, D] in force, and to what was observed."""

    def count_words(self, counts: Tensor) -> None:
        """How often each word is in the training data, [V]; -1 for symbols that are no words."""


MODIFIERS: Registry[type[Modifier]] = Registry("schedule modifier")
# One part under two names: with "none" a noise factor of training is refused when the model is built, as a slip.
MODIFIERS.register("none")(Modifier)
MODIFIERS.register("factor")(Modifier)


@MODIFIERS.register("factor_vp")
class FactorVP(Modifier):
    """The signal-to-noise ratio of `factor` at unit variance: abar' = abar / (F^2 - (F^2 - 1) abar)."""

    def with_factor(self, level: Level, F: float) -> Level:
        """alpha and F sigma over their norm, sqrt(alpha^2 + F^2 sigma^2)."""
        noisy = super().with_factor(level, F)
        norm = torch.hypot(noisy.alpha, noisy.sigma)
        return Level(noisy.alpha / norm, noisy.sigma / norm)


@MODIFIERS.register("clip")
class Clip(Modifier):
    """Noise-scale clipping (DINOISER eq. 13-14): never train where noise is smaller than the space between tokens.

    sigma^2 / (1 - sigma^2) >= delta^2  <=>  sigma >= sigma_min = sqrt(delta^2 / (1 + delta^2)),  t ~ U(sigma^-1, 1).
    """

    extra = 0.0
    sigma_min: Tensor

    def __init__(self, factor: float = 1.0):
        super().__init__(factor)
        self.register_buffer("sigma_min", torch.zeros((), dtype=torch.float64))

    def time(self, u: Tensor, curve: Curve | DiscreteCurve) -> Tensor:
        t_min = curve.time(self.sigma_min.to(u.device))
        return t_min + (1 - t_min) * u

    def update(self, table: Tensor, curve: Curve | DiscreteCurve) -> None:
        delta_2 = spread(table) + self.extra
        self.sigma_min.copy_((delta_2 / (1 + delta_2)).sqrt())


@MODIFIERS.register("clip_plus_one")
class ClipPlusOne(Clip):
    """Clipping with delta^2 + 1 for delta^2, so that sigma_min >= sqrt(1/2): in a released recipe, not in the paper."""

    extra = 1.0


@MODIFIERS.register("spindle")
class Spindle(Modifier):
    """Words that say more are hidden earlier, and so revealed later (He et al. 2023, DiffusionBERT, section 3.2).

    With the information H(w) = -log frequency, and its mean over a sentence's words, the share kept of a word is

        a - 0.3 sin(pi (1 - a)) (1 - mean H / H(w)),   between 0 and 1

    where the curve keeps a.  Before clipping, the information that is kept falls as a does.  Without tokens, a itself.
    """

    by_words, strength = True, 0.3  # up to 1 / pi the share of no word rises with time
    information: Tensor

    def __init__(self, factor: float = 1.0):
        super().__init__(factor)
        self.register_buffer("information", torch.zeros(0, dtype=torch.float64))

    def count_words(self, counts: Tensor) -> None:
        counts = counts.double()
        rarest = counts[counts > 0].min()  # a word that is in the dictionary alone is as rare
        words = counts >= 0
        frequency = counts.clamp(min=rarest) / counts.clamp(min=0).sum()
        self.information = torch.where(words, -frequency.log(), 0.0)

    def level(
        self,
        t: Tensor,
        sigma: Tensor,
        factor: float | None = None,
        positions: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Level:
        level = super().level(t, sigma, factor)
        if tokens is None:
            return level
        a, H = level.alpha.square(), self.information.to(tokens.device)[tokens]
        mean = H.sum(-1, keepdim=True) / (H > 0).sum(-1, keepdim=True).clamp(min=1)
        excess = torch.where(H > 0, 1 - mean / H.masked_fill(H == 0, 1.0), 0.0)
        hidden = 1 - (a - self.strength * torch.sin(math.pi * (1 - a)) * excess)
        return Level.variance_preserving(hidden.clamp(LEAST_HIDDEN, 1).sqrt())
