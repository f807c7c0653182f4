"""Gaussian samplers: from x_t and the clean estimate to x_s, s < t.

Each is one equation,

    x_s = keep x_t + (alpha_s - keep alpha_t) D + fresh z,     D = x_0 + lead (x_0 - x_0 of the step before),

so a sampler is three numbers a step, made in fp64 before the loop; for each position, where its levels are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.samplers.grid import Grid
from fairseq_diffusion.samplers.loop import AS_IT_IS, SAMPLERS, Batch, Drawing, Step

Weight = float | Tensor  # a number, or one for each of the first positions, [P] on the host


def times_weight(weight: Weight, x: Tensor) -> Tensor:
    """x [..., L, D] times the weight; positions behind the last that has one share its."""
    if isinstance(weight, float):
        return weight * x
    place = torch.arange(x.shape[-2]).clamp(max=len(weight) - 1)
    return weight[place, None].to(x) * x


class GaussianStep(NamedTuple):
    """The weights of one step."""

    x_t: Weight
    x_0: Weight
    previous: Weight
    noise: Weight

    @property
    def draws(self) -> bool:
        return _any(self.noise)

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor | None) -> Tensor:
        """x_s from x_t, this step's and the previous estimate, all [S, K, L, D], and keys [S, K] of fresh noise."""
        z = None if keys is None else noise.normal(keys, *s_t.shape[-2:])
        if (c := batch.state.center) is None:
            return self.apply(s_t, estimate, previous, z)
        return c + self.apply(s_t - c, estimate - c, previous - c, z)

    def apply(self, x_t: Tensor, x_0: Tensor, previous: Tensor, z: Tensor | None) -> Tensor:
        """The same for given noise z [..., L, D]."""
        x_s = times_weight(self.x_t, x_t) + times_weight(self.x_0, x_0)
        if _any(self.previous):
            x_s = x_s + times_weight(self.previous, previous)
        return x_s if z is None else x_s + times_weight(self.noise, z)


def _any(weight: Weight) -> bool:
    return bool(weight if isinstance(weight, float) else weight.any())


class GaussianSampler(NamedTuple):
    """What sets one sampler apart from another."""

    eta: float = 0.0  # share of the posterior's standard deviation drawn anew: 0 is DDIM, 1 is DDPM
    order: int = 1  # 2 extrapolates the estimate from the step before
    conditioning: tuple[float, float] | None = None  # noise levels to condition the network on, if not the sample's own
    assumes_conditioning: bool = False  # take x_t to have the noise level that the network is conditioned on
    family: str = "gaussian"
    needs_hidden: bool = False
    needs_replaced: bool = False
    word_temperature: None = None

    def steps(
        self,
        grid: Grid,
        eta: float | None = None,
        temperature: float = 1.0,
        drawing: Drawing = AS_IT_IS,
    ) -> list[GaussianStep]:
        eta = self.eta if eta is None else eta
        check(self, eta, temperature)
        if drawing != AS_IT_IS:
            raise UserError(
                "--word-temperature, --top-k and --top-p are for models whose states are words, and this one's are "
                "vectors; drop them"
            )
        now, next_ = grid.level[:-1], grid.level[1:]
        seen = grid.conditioning_level[:-1] if self.assumes_conditioning else now
        v = eta**2 * posterior_variance(now, next_)
        keep = (next_.sigma.square() - v).clamp(min=0).sqrt() / seen.sigma * tempering(now, next_, temperature)
        lead = extrapolation(grid.level) if self.order == 2 else torch.zeros_like(keep)
        x_0 = next_.alpha - keep * seen.alpha
        table = torch.stack([keep, x_0 * (1 + lead), -x_0 * lead, v.sqrt()], 1)
        return [GaussianStep(*row) for row in (table.tolist() if table.dim() == 2 else table)]

    def busy(self, batch: Batch, steps: Sequence[Step], s: Tensor) -> None:
        """All that is not clean changes at every step."""


SAMPLERS.register("ddim")(GaussianSampler())  # Song et al. 2021, eq. 12
SAMPLERS.register("ddpm")(GaussianSampler(eta=1.0))  # Ho et al. 2020, eq. 6-7
SAMPLERS.register("cedi")(GaussianSampler(conditioning=(1.0, 0.99), assumes_conditioning=True))  # DINOISER, alg. 2
SAMPLERS.register("fixed_t")(GaussianSampler(eta=1.0, conditioning=(0.99, 0.99)))  # DDPM, one level throughout
SAMPLERS.register("dpmpp_2m")(GaussianSampler(order=2))  # Lu et al. 2022, alg. 2


def posterior_variance(now: Level, next_: Level) -> Tensor:
    """Of q(x_s | x_t, x_0): (sigma_s / sigma_t)^2 (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2), [M] or [M, P]."""
    forward = now.sigma.square() - (now.alpha / next_.alpha * next_.sigma).square()
    return (next_.sigma / now.sigma).square() * forward.clamp(min=0)


def extrapolation(level: Level) -> Tensor:
    """DPM-Solver++(2M): lead = h / (2 h of the step before), h = the step in log(alpha / sigma); of levels
    [M + 1], [M], or of [M + 1, P], [M, P].

    A step out of pure noise or into clean data is infinitely long: there, and in the first step, the lead is 0.
    """
    h = level.half_log_snr.diff(dim=0)
    lead = torch.cat([torch.zeros_like(h[:1]), h[1:] / (2 * h[:-1])])
    return torch.where(h.isfinite(), lead, 0.0).nan_to_num(0.0)


def tempering(now: Level, next_: Level, temperature: float) -> Tensor:
    """What dividing the score by `temperature` does to the noise kept, [M] (CDCD, Dieleman et al. 2022).

    dy/dtau = (y - x_0) / (tau temperature) in y = x / alpha, tau = sigma / alpha, over one step with x_0 held fixed:
    y_s - x_0 = (tau_s / tau_t)^(1 / temperature) (y_t - x_0).  Pure noise, and clean data, have nothing to temper.
    """
    ratio = (next_.sigma / next_.alpha) / (now.sigma / now.alpha)
    return torch.where((ratio > 0) & ratio.isfinite(), ratio, 1.0) ** (1 / temperature - 1)


def check(sampler: GaussianSampler, eta: float, temperature: float) -> None:
    """Refuse values that have no meaning."""
    if not 0 <= eta <= 1:
        raise UserError(f"--eta is {eta}, but a share of the posterior's noise is between 0 (DDIM) and 1 (DDPM)")
    if sampler.order > 1 and eta > 0:
        raise UserError(f"--eta {eta} does not go with a solver of second order; drop it, or pass --sampler ddpm")
    if not temperature > 0:
        raise UserError(f"--temperature is {temperature}; pass a number above 0 (below 1 trusts the estimate more)")
