"""What -log p(y | x) of given translations is, and its estimate from samples in strata.  torch only."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise


class Likelihood(NamedTuple):
    """-log p(y | x) of B translations, in nats, or an unbiased estimate of an upper bound on it."""

    nats: Tensor  # [B] in fp64; inf for a translation that the model cannot make
    error: Tensor  # [B] in fp64, its standard error by the noise that was drawn; 0 where it is exact
    exact: bool  # else an upper bound

    @classmethod
    def known(cls, nats: Tensor) -> Likelihood:
        """An exact one."""
        return cls(nats, torch.zeros_like(nats), exact=True)


def check_samples(samples: int) -> None:
    if samples < 2:
        raise UserError(
            f"{samples} samples of a likelihood's bound were asked for; pass 2 or more, since one has no standard "
            "error (32 is usual)"
        )


def stratified_choice(share: Tensor, keys: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Numbers drawn from probabilities, one in each of n equal strata of their distribution function.

    Args:
        share: probabilities [T] in fp64.
        keys: random keys [B].
        samples: n.

    Returns:
        numbers [B, n] from 0 to T - 1, and the weights [B, n] that make the mean over samples one of the sum over T.
    """
    strata = torch.arange(samples, device=keys.device)
    u = (strata + noise.uniform(keys, samples)) / samples
    number = torch.searchsorted(share.cumsum(0), u).clamp(max=len(share) - 1)
    return number, 1 / share[number]


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of one value a stratum, [B, n] in order -> [B], and its standard error [B].

    A stratum has one value, so its variance is estimated from its neighbour's: (x_1 - x_2)^2 has the mean
    var x_1 + var x_2 + (difference of their means)^2.  The last of an odd number is compared with the one before it.
    So the error is on the safe side.
    """
    first, second = values[:, 0::2], values[:, 1::2]
    if second.shape[1] < first.shape[1]:
        second = torch.cat([second, values[:, -2:-1]], 1)
    return values.mean(1), (first - second).square().sum(1).sqrt() / values.shape[1]
