"""A curve in T discrete steps, as Diffusion-LM and its descendants train."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.kernels.precision import KeepsPrecision
from fairseq_diffusion.process.curves import Curve, sigma_of_decay

BETA_MAX = 0.999


def betas(curve: Curve, steps: int) -> Tensor:
    """beta_i = min(1 - abar((i + 1) / T) / abar(i / T), 0.999), [T] in fp64 (Nichol & Dhariwal 2021, section 3.2).

    Written as (sigma_(i+1)^2 - sigma_i^2) / alpha_i^2, which keeps the digits of a small first beta.
    """
    sigma = curve.sigma(torch.arange(steps + 1, dtype=torch.float64) / steps)
    before, after = sigma[:-1], sigma[1:]
    beta = (after - before) * (after + before) / ((1 - before) * (1 + before))
    return beta.nan_to_num(nan=1.0).clamp(max=BETA_MAX)  # 0 / 0 where all was noise a step ago


class DiscreteCurve(KeepsPrecision):
    """abar_i = prod_(j <= i) (1 - beta_j), i = 0 .. T-1: index i is time (i + 1) / T, and time 0 is clean data.

    abar is thus relative to the curve's own abar(0).  The table of sigma, [T + 1] in fp64, is in the checkpoint.
    """

    table: Tensor

    def __init__(self, curve: Curve, steps: int):
        super().__init__()
        self.steps = steps
        decay = -torch.log1p(-betas(curve, steps)).cumsum(0)
        self.register_buffer("table", torch.cat([decay.new_zeros(1), sigma_of_decay(decay)]))

    def sigma(self, t: Tensor) -> Tensor:
        """sigma at the table's times nearest to t, in the shape of t."""
        return self.table.to(t.device)[(t * self.steps).round().long()]

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which the table is nearest to sigma, in the shape of sigma."""
        table = self.table.to(sigma.device)
        return torch.bucketize(sigma, (table[1:] + table[:-1]) / 2).double() / self.steps

    def snap(self, t: Tensor) -> Tensor:
        """The table's nearest time."""
        return (t * self.steps).round() / self.steps

    def snap_up(self, t: Tensor) -> Tensor:
        """The table's next time and never 0, so that t ~ U(0, 1) gives each of the T indices equally often."""
        return (t * self.steps).ceil().clamp(min=1) / self.steps
