"""Schedule modifiers: at most one stands between the base curve and training."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.process.curves import Curve
from fairseq_diffusion.process.nearest import spread
from fairseq_diffusion.process.precision import KeepsPrecision
from fairseq_diffusion.registry import Registry


class Modifier(KeepsPrecision):
    """Leaves the curve as it is; subclasses change the times trained on, and own what they learn as buffers."""

    def time(self, u: Tensor, curve: Curve) -> Tensor:
        """Training time for a uniform u in [0, 1], both [B]."""
        return u

    def update(self, table: Tensor) -> None:
        """Adapt to the embedding table [V, D] in force."""


MODIFIERS: Registry[type[Modifier]] = Registry("schedule modifier")
MODIFIERS.register("none")(Modifier)


class Clip(Modifier):
    """Noise-scale clipping (DINOISER eq. 13-14): never train where noise is smaller than the space between tokens.

    sigma^2 / (1 - sigma^2) >= delta^2  <=>  sigma >= sigma_min = sqrt(delta^2 / (1 + delta^2)),  t ~ U(sigma^-1, 1).
    """

    extra = 0.0
    sigma_min: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sigma_min", torch.zeros((), dtype=torch.float64))

    def time(self, u: Tensor, curve: Curve) -> Tensor:
        t_min = curve.time(self.sigma_min)
        return t_min + (1 - t_min) * u

    def update(self, table: Tensor) -> None:
        delta_2 = spread(table) + self.extra
        self.sigma_min.copy_((delta_2 / (1 + delta_2)).sqrt())


class ClipPlusOne(Clip):
    """Clipping with delta^2 + 1 for delta^2, so that sigma_min >= sqrt(1/2): in a released recipe, not in the paper."""

    extra = 1.0


MODIFIERS.register("clip")(Clip)
MODIFIERS.register("clip_plus_one")(ClipPlusOne)
