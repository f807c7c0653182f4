"""A noise schedule: a base curve and at most one modifier."""

from __future__ import annotations

from torch import Tensor

from fairseq_diffusion.process.curves import CURVES
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.modifiers import MODIFIERS
from fairseq_diffusion.process.precision import KeepsPrecision


class Schedule(KeepsPrecision):
    """t -> Level, and back from sigma to t.  All in fp64, under any autocast."""

    def __init__(self, curve: str = "sigma_t", modifier: str = "none"):
        super().__init__()
        self.curve = CURVES[curve]
        self.modifier = MODIFIERS[modifier]()

    def level(self, t: Tensor) -> Level:
        """Level at times t, [B, 1] or [B, L]."""
        return Level.variance_preserving(self.curve.sigma(t.double()))

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which the curve reaches sigma."""
        return self.curve.time(sigma.double())

    def training_time(self, u: Tensor) -> Tensor:
        """Uniform u in [0, 1] -> the time to train on."""
        return self.modifier.time(u.double(), self.curve)

    def update(self, table: Tensor) -> None:
        """Let the modifier adapt to the embedding table [V, D]."""
        self.modifier.update(table)
