"""Update rules: from x_t and the clean estimate to x_s, s < t."""

from __future__ import annotations

from typing import Callable, NamedTuple

from torch import Tensor

from fairseq_diffusion.process.level import Level
from fairseq_diffusion.registry import Registry


class Step(NamedTuple):
    """One step of a grid."""

    told: Level  # what the network was told of x_t
    now: Level  # what x_t is
    next: Level  # what x_s is to be
    noise: Callable[[], Tensor]  # fresh N(0, 1) shaped like x_t


Rule = Callable[[Tensor, Tensor, Step], Tensor]


def deterministic(x_t: Tensor, x_0: Tensor, step: Step) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12, eta = 0); CeDi where the noise told exceeds the true one (DINOISER alg. 2)."""
    return step.next.mix(x_0, step.told.noise_in(x_t, x_0))


def ancestral(x_t: Tensor, x_0: Tensor, step: Step) -> Tensor:
    """DDPM: draw from the posterior q(x_s | x_t, x_0) (Ho et al. 2020, eq. 6-7).

    v = (sigma_s / sigma_t)^2 (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) is its variance, and its mean is
    alpha_s x_0 + sqrt(sigma_s^2 - v) eps.
    """
    now, next_ = step.now, step.next
    v = (next_.sigma / now.sigma).square() * (now.sigma.square() - (now.alpha / next_.alpha * next_.sigma).square())
    v = v.clamp(min=0)
    kept = Level(next_.alpha, (next_.sigma.square() - v).clamp(min=0).sqrt())
    return kept.mix(x_0, step.told.noise_in(x_t, x_0)) + v.sqrt()[..., None] * step.noise()


class Sampler(NamedTuple):
    """A rule, and the noise levels told to the network if they are not the true ones."""

    rule: Rule
    told: tuple[float, float] | None = None


SAMPLERS: Registry[Sampler] = Registry("sampler")
SAMPLERS.register("ddim")(Sampler(deterministic))
SAMPLERS.register("ddpm")(Sampler(ancestral))
SAMPLERS.register("cedi")(Sampler(deterministic, told=(1.0, 0.99)))
