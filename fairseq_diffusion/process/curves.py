"""Base noise curves sigma(t), t in [0, 1], each with its inverse; all are variance preserving.

A variance-exploding process x_t = x_0 + tau eps is variance preserving once divided by sqrt(1 + tau^2), so it is a
curve like the others: sigma = tau / sqrt(1 + tau^2).
"""

from __future__ import annotations

import math
from typing import Callable, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.registry import Registry


class Curve(NamedTuple):
    """sigma(t) and the time at which a sigma is reached; every time is one of its own."""

    sigma: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]

    def time(self, sigma: Tensor) -> Tensor:
        """sigma^-1, held inside [0, 1] where a curve does not quite reach 0 or 1."""
        return self.inverse(sigma).clamp(0, 1)

    def snap(self, t: Tensor) -> Tensor:
        """The nearest time the curve has."""
        return t

    def snap_up(self, t: Tensor) -> Tensor:
        """The next time the curve has."""
        return t


CURVES: Registry[Curve] = Registry("schedule")


def sigma_of_decay(decay: Tensor) -> Tensor:
    """sigma when alpha^2 = exp(-decay)."""
    return (-torch.expm1(-decay)).sqrt()


def decay_of_sigma(sigma: Tensor) -> Tensor:
    """-log alpha^2, the integrated beta of a variance-preserving SDE."""
    return -torch.log1p(-sigma.square())


def odds(sigma: Tensor) -> Tensor:
    """sigma / alpha, the noise level of the variance-exploding form."""
    return sigma / ((1 - sigma) * (1 + sigma)).sqrt()


def sigma_of_odds(tau: Tensor) -> Tensor:
    """sigma of the variance-exploding noise tau."""
    return tau / (1 + tau.square()).sqrt()


# DINOISER's default, sigma(t) = t.
CURVES.register("sigma_t")(Curve(lambda t: t, lambda s: s))

# Diffusion-LM's square root without its offset: alpha^2 = 1 - sqrt(t).
CURVES.register("sqrt")(Curve(lambda t: t**0.25, lambda s: s**4))

SQRT_OFFSET = 1e-4
SQRT_LOW = math.sqrt(SQRT_OFFSET)


def _sqrt_offset_sigma(t: Tensor) -> Tensor:
    """alpha^2 = (1 - sqrt(t + d)) / (1 - sqrt(d)), d = 1e-4 (Li et al. 2022, appendix A), clean at t = 0.

    sqrt(t + d) - sqrt(d) is written without its cancellation; all is noise from t = 1 - d on.
    """
    rise = t / ((t + SQRT_OFFSET).sqrt() + SQRT_LOW)
    return (rise / (1 - SQRT_LOW)).clamp(max=1).sqrt()


def _sqrt_offset_inverse(sigma: Tensor) -> Tensor:
    rise = sigma.square() * (1 - SQRT_LOW)
    return rise * (rise + 2 * SQRT_LOW)


CURVES.register("sqrt_offset")(Curve(_sqrt_offset_sigma, _sqrt_offset_inverse))

# Masked diffusion's log-linear survival as a Gaussian curve: alpha^2 = 1 - t.
CURVES.register("log_linear")(Curve(torch.sqrt, torch.square))

SIGMA_LOW = 1e-3
CURVES.register("geometric")(Curve(lambda t: SIGMA_LOW ** (1 - t), lambda s: 1 - torch.log(s) / math.log(SIGMA_LOW)))

BETA_LOW, BETA_HIGH = 0.1, 20.0


def _linear_decay(t: Tensor) -> Tensor:
    """Integral of beta(t) = 0.1 + 19.9 t (VP-SDE, Song et al. 2021, eq. 32)."""
    return BETA_LOW * t + (BETA_HIGH - BETA_LOW) / 2 * t.square()


def _linear_inverse(sigma: Tensor) -> Tensor:
    slope = BETA_HIGH - BETA_LOW
    return ((BETA_LOW**2 + 2 * slope * decay_of_sigma(sigma)).sqrt() - BETA_LOW) / slope


CURVES.register("linear")(Curve(lambda t: sigma_of_decay(_linear_decay(t)), _linear_inverse))

ROOT_LOW, ROOT_HIGH = math.sqrt(BETA_LOW), math.sqrt(BETA_HIGH)


def _quadratic_decay(t: Tensor) -> Tensor:
    """Integral of beta whose square root is linear in t."""
    slope = ROOT_HIGH - ROOT_LOW
    return ((ROOT_LOW + slope * t) ** 3 - ROOT_LOW**3) / (3 * slope)


def _quadratic_inverse(sigma: Tensor) -> Tensor:
    slope = ROOT_HIGH - ROOT_LOW
    return ((3 * slope * decay_of_sigma(sigma) + ROOT_LOW**3) ** (1 / 3) - ROOT_LOW) / slope


CURVES.register("quadratic")(Curve(lambda t: sigma_of_decay(_quadratic_decay(t)), _quadratic_inverse))

OFFSET = 0.008
COSINE_START = math.cos(math.pi / 2 * OFFSET / (1 + OFFSET))


def _cosine_alpha(t: Tensor) -> Tensor:
    """cos(angle(t)) / cos(angle(0)) (Nichol & Dhariwal 2021, eq. 17)."""
    return torch.cos(math.pi / 2 * (t + OFFSET) / (1 + OFFSET)) / COSINE_START


def _cosine_time(alpha: Tensor) -> Tensor:
    return torch.acos(alpha * COSINE_START) * 2 / math.pi * (1 + OFFSET) - OFFSET


CURVES.register("cosine")(
    Curve(
        lambda t: ((1 - _cosine_alpha(t)) * (1 + _cosine_alpha(t))).clamp(min=0).sqrt(),
        lambda s: _cosine_time(((1 - s) * (1 + s)).sqrt()),
    )
)
# alpha^2 is the cosine's alpha: the share that multinomial diffusion keeps (Hoogeboom et al. 2021).
CURVES.register("cosine_root")(
    Curve(lambda t: (1 - _cosine_alpha(t)).clamp(min=0).sqrt(), lambda s: _cosine_time(1 - s.square()))
)

DECAY_LOW, DECAY_HIGH = 1e-4, 20.0
# -log alpha^2 from 1e-4 to 20, evenly in its logarithm (SEDD, Lou et al. 2024).
CURVES.register("geometric_decay")(
    Curve(
        lambda t: sigma_of_decay(DECAY_LOW ** (1 - t) * DECAY_HIGH**t),
        lambda s: torch.log(decay_of_sigma(s) / DECAY_LOW) / math.log(DECAY_HIGH / DECAY_LOW),
    )
)

SHIFT = 0.1
# alpha^2 = sigmoid(log SNR + 2 log s) on the plain cosine, s = 0.1 (LD4LG): sigma / alpha = tan(pi t / 2) / s.
CURVES.register("shifted_cosine")(
    Curve(
        lambda t: (
            torch.sin(math.pi / 2 * t)
            / (torch.sin(math.pi / 2 * t).square() + (SHIFT * torch.cos(math.pi / 2 * t)).square()).sqrt()
        ),
        lambda s: 2 / math.pi * torch.atan(SHIFT * odds(s)),
    )
)

TAU_HIGH = 300.0
# tau from 1 to 300 (CDCD), evenly in log tau.
CURVES.register("variance_exploding")(
    Curve(lambda t: sigma_of_odds(TAU_HIGH**t), lambda s: torch.log(odds(s)) / math.log(TAU_HIGH))
)

GAMMA_LOW, GAMMA_HIGH = -3.0, 6.0
# -log SNR even in t between the ends that Plaid learnt (Gulrajani and Hashimoto 2023): some noise stays at t = 0.
CURVES.register("log_snr")(
    Curve(
        lambda t: torch.sigmoid(GAMMA_LOW + (GAMMA_HIGH - GAMMA_LOW) * t).sqrt(),
        lambda s: (2 * torch.log(odds(s)) - GAMMA_LOW) / (GAMMA_HIGH - GAMMA_LOW),
    )
)

RHO = 7


def _power(low: float, high: float) -> Curve:
    """tau from low to high, evenly in tau^(1/rho) with rho = 7 (Karras et al. 2022, eq. 5)."""
    first, last = low ** (1 / RHO), high ** (1 / RHO)
    return Curve(
        lambda t: sigma_of_odds((first + t * (last - first)) ** RHO),
        lambda s: (odds(s) ** (1 / RHO) - first) / (last - first),
    )


CURVES.register("edm")(_power(0.002, 80.0))
# The range of CDCD, spaced as in EDM: some translators call this one CDCD's.
CURVES.register("edm_wide")(_power(1.0, TAU_HIGH))
