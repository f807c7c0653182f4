"""A noise schedule: a base curve, continuous or in discrete steps, and at most one modifier."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels.precision import KeepsPrecision
from fairseq_diffusion.process import adaptive  # noqa: F401  enters its modifiers
from fairseq_diffusion.process.curves import CURVES, Curve
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.modifiers import MODIFIERS
from fairseq_diffusion.process.time_table import DiscreteCurve


class Schedule(KeepsPrecision):
    """t -> Level, and back from sigma to t.  All in fp64, under any autocast.

    `steps` = 0 is continuous time; `factor` is the noise factor F that the modifier applies; no time below `time_min`
    is trained on.
    """

    curve: Curve | DiscreteCurve

    def __init__(
        self,
        curve: str = "sigma_t",
        modifier: str = "none",
        factor: float = 1.0,
        steps: int = 0,
        time_min: float = 0.0,
    ):
        super().__init__()
        if steps < 0:
            raise UserError(f"a schedule of {steps} steps was asked for; give 1 or more, or 0 for continuous time")
        self.steps, self.time_min, self.name = steps, time_min, curve
        self.curve = DiscreteCurve(CURVES[curve], steps) if steps else CURVES[curve]
        self.modifier = MODIFIERS[modifier](factor)

    def level(
        self, t: Tensor, factor: float | None = None, positions: Tensor | None = None, tokens: Tensor | None = None
    ) -> Level:
        """Level at times t, [B, 1] or [B, L].

        Args:
            t: diffusion times in [0, 1].
            factor: replaces the noise factor trained with.
            positions: numbers [L] of the positions, for a modifier whose levels depend on them.
            tokens: clean tokens [B, L], for a modifier whose levels depend on them; there are none in decoding.
        """
        return self.modifier.level(t.double(), self.curve.sigma(t.double()), factor, positions, tokens)

    def continuous(self) -> Schedule:
        """The same without a table of steps."""
        found = Schedule(self.name)
        found.modifier = self.modifier
        return found

    def snap(self, t: Tensor) -> Tensor:
        """The nearest times that the schedule has."""
        return self.curve.snap(t.double())

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which the base curve, before any factor, reaches sigma."""
        return self.curve.time(sigma.double())

    def training_time(self, u: Tensor) -> Tensor:
        """Uniform u in (0, 1) -> the time to train on."""
        u = self.time_min + (1 - self.time_min) * u.double()
        return self.curve.snap_up(self.modifier.time(u, self.curve))

    def training_weight(self, u: Tensor) -> Tensor:
        """What losses at the training times of u [B] weigh beside the time sampler's weight."""
        return self.modifier.weight(u.double())

    @torch.enable_grad()
    def reveal_rate(self, t: Tensor, tokens: Tensor | None = None) -> Tensor:
        """-(d alpha^2 / d t) / (1 - alpha^2) at times t [B, 1], in fp64, of each word [B, L] if levels differ: how
        fast words, hidden with probability 1 - alpha^2, are revealed on the way back; in T steps, T times the share
        that one of them reveals."""
        t = t.double().expand_as(tokens) if self.modifier.by_words and tokens is not None else t.double()
        if self.steps:
            now, next_ = (self.level(time, tokens=tokens).sigma.square() for time in (t, t - 1 / self.steps))
            return self.steps * (now - next_) / now
        t = t.detach().requires_grad_()
        hidden = self.level(t, tokens=tokens).sigma.square()
        (slope,) = torch.autograd.grad(hidden.sum(), t)
        return slope / hidden.detach()

    def slope(self, t: Tensor, tokens: Tensor | None = None) -> Tensor:
        """-d alpha^2 / d t at times t, [B, 1] in fp64."""
        return self.reveal_rate(t, tokens) * self.level(t, tokens=tokens).sigma.square()

    def snr_rate(self, t: Tensor) -> Tensor:
        """-(d SNR / d t), SNR = alpha^2 / sigma^2 at unit variance, at times t [B, 1] in fp64."""
        return self.reveal_rate(t) / self.level(t).sigma.square()

    def kept_before(self, t: Tensor, tokens: Tensor | None = None) -> Tensor:
        """alpha^2 one of T steps before the times t, [B, 1] in fp64; in continuous time alpha^2 at t."""
        before = t.double() - 1 / self.steps if self.steps else t
        return self.level(before, tokens=tokens).alpha.square()

    def update(self, table: Tensor) -> None:
        """Let the modifier adapt to the embedding table [V, D]."""
        self.modifier.update(table, self.curve)
