"""Which times a batch is trained on: numbers u in (0, 1) that the schedule turns into times, and what each weighs."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.precision import KeepsPrecision
from fairseq_diffusion.process.ranks import sum_over_ranks
from fairseq_diffusion.registry import Registry


class TimeSampler(KeepsPrecision):
    """One u ~ U(0, 1) a sentence.

    Args:
        mean, spread: of the log-odds of u, in a sampler that draws these.
    """

    def __init__(self, mean: float = 0.0, spread: float = 1.0):
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Random keys [B] -> u [B] in fp64, and importance weights [B] that make a loss over such u the loss over
        uniform ones."""
        u = noise.uniform(keys, 1)[:, 0]
        return u, torch.ones_like(u)

    def observe(self, u: Tensor, loss: Tensor) -> None:
        """Called in training with the loss of each sentence, [B], at its u [B], before any weight."""


TIME_SAMPLERS: Registry[type[TimeSampler]] = Registry("time sampler")
TIME_SAMPLERS.register("uniform")(TimeSampler)


@TIME_SAMPLERS.register("stratified")
class Stratified(TimeSampler):
    """One u in each of B equal strata, in random order (CDCD section 3.3): less variance, but it looks at the batch."""

    def forward(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        rank = noise.uniform(noise.fold(keys, 1), 1)[:, 0].argsort().argsort()
        u, weight = super().forward(keys)
        return (rank + u) / len(keys), weight


@TIME_SAMPLERS.register("logit_normal")
class LogitNormal(TimeSampler):
    """log(u / (1 - u)) ~ N(mean, spread^2), without weights: such times count more in the loss (Esser et al. 2024,
    section 3.1)."""

    def forward(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.sigmoid(self.mean + self.spread * noise.normal(keys, 1, 1)[:, 0, 0].double())
        u = u.clamp(1e-9, 1 - 1e-9)
        return u, torch.ones_like(u)


@TIME_SAMPLERS.register("second_moment")
class SecondMoment(TimeSampler):
    """Times are drawn more often where losses are large: u in bin k of K with a probability in proportion to the root
    of the mean squared loss there (Nichol and Dhariwal 2021, section 3.3), a running mean that is saved with the model.

    Until each bin has been seen ten times all are as probable.  In validation all are, too, and nothing is learnt.
    Means are over the sentences of all ranks.  Loss terms that do not depend on the time (rounding, prior) blur what is
    learnt.
    """

    bins, decay, enough, least = 100, 0.9, 10, 1e-3  # `least`: share of the probability that all bins have alike
    moment: Tensor
    seen: Tensor  # in fp64, as fairseq's moving average takes no whole numbers

    def __init__(self, mean: float = 0.0, spread: float = 1.0):
        super().__init__(mean, spread)
        self.register_buffer("moment", torch.zeros(self.bins, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(self.bins, dtype=torch.float64))

    def probability(self) -> Tensor:
        """Of each bin, [K] in fp64."""
        even = torch.full_like(self.moment, 1 / self.bins)
        if not self.training:
            return even
        root = self.moment.sqrt()
        share = (1 - self.least) * root / root.sum().clamp(min=torch.finfo(root.dtype).tiny) + self.least * even
        return torch.where((self.seen >= self.enough).all() & (root.sum() > 0), share, even)

    def forward(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        p, (u, _) = self.probability(), super().forward(keys)
        upper = p.cumsum(0)
        k = torch.searchsorted(upper, u.contiguous(), right=True).clamp(max=self.bins - 1)
        inside = ((u - (upper[k] - p[k])) / p[k]).clamp(0, 1 - 1e-9)
        return (k + inside) / self.bins, 1 / (self.bins * p[k])

    @torch.no_grad()
    def observe(self, u: Tensor, loss: Tensor) -> None:
        k, finite = (u * self.bins).long().clamp(max=self.bins - 1), loss.isfinite()  # fp16 may overflow
        count = torch.zeros_like(self.seen).index_add_(0, k, finite.double())
        squares = torch.zeros_like(self.moment).index_add_(0, k, loss.detach().double().where(finite, 0.0).square())
        sum_over_ranks(squares, count)
        mean = squares / count.clamp(min=1)
        running = torch.where(self.seen > 0, torch.lerp(mean, self.moment, self.decay), mean)
        self.moment.copy_(torch.where(count > 0, running, self.moment))
        self.seen.add_(count)


def chance(key: Tensor, p: float) -> bool:
    """True with probability p; a function of the (CPU) key alone, so ranks agree and no GPU is waited for."""
    return bool(noise.uniform(noise.fold(key, noise.Stream.SELF_CONDITIONING), 1) < p)
