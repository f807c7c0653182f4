"""A noise schedule: a base curve, continuous or in discrete steps, and at most one modifier."""

from __future__ import annotations

from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels.precision import KeepsPrecision
from fairseq_diffusion.process.curves import CURVES, Curve
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.modifiers import MODIFIERS
from fairseq_diffusion.process.time_table import DiscreteCurve


class Schedule(KeepsPrecision):
    """t -> Level, and back from sigma to t.  All in fp64, under any autocast.

    `steps` = 0 is continuous time; `factor` is the noise factor F that the modifier applies.
    """

    curve: Curve | DiscreteCurve

    def __init__(self, curve: str = "sigma_t", modifier: str = "none", factor: float = 1.0, steps: int = 0):
        super().__init__()
        if steps < 0:
            raise UserError(f"a schedule of {steps} steps was asked for; give 1 or more, or 0 for continuous time")
        self.steps = steps
        self.curve = DiscreteCurve(CURVES[curve], steps) if steps else CURVES[curve]
        self.modifier = MODIFIERS[modifier](factor)

    def level(
        self, t: Tensor, factor: float | None = None, positions: Tensor | None = None, tokens: Tensor | None = None
    ) -> Level:
        """Level at times t, [B, 1] or [B, L].

        Args:
            t: diffusion times in [0, 1].
            factor: replaces the noise factor trained with.
            positions: numbers [B, L] or [L] of the positions, for a modifier whose levels depend on them.
            tokens: clean tokens [B, L], for a modifier whose levels depend on them; there are none in decoding.
        """
        return self.modifier.level(self.curve.sigma(t.double()), factor, positions, tokens)

    def snap(self, t: Tensor) -> Tensor:
        """The nearest times that the schedule has."""
        return self.curve.snap(t.double())

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which the base curve, before any factor, reaches sigma."""
        return self.curve.time(sigma.double())

    def training_time(self, u: Tensor) -> Tensor:
        """Uniform u in (0, 1) -> the time to train on."""
        return self.curve.snap_up(self.modifier.time(u.double(), self.curve))

    def update(self, table: Tensor) -> None:
        """Let the modifier adapt to the embedding table [V, D]."""
        self.modifier.update(table)
