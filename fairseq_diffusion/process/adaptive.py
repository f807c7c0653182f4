"""Schedules that are fitted, as training goes on, to the loss that each time has.

What training observes is summed in buffers, over all ranks alike, and nothing of it has a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.process.curves import Curve
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.modifiers import MODIFIERS, Modifier
from fairseq_diffusion.process.ranks import sum_over_ranks
from fairseq_diffusion.process.time_table import DiscreteCurve

BINS = 100  # K, of time


def bin_of(t: Tensor) -> Tensor:
    """The bin ((k - 1) / K, k / K] of times t, counted from 0."""
    return ((t * BINS - 1e-9).ceil().long() - 1).clamp(0, BINS - 1)


def increasing(values: Tensor, weight: Tensor) -> Tensor:
    """The increasing sequence nearest to values [K] by weighted squares: max over i <= k, then min over j >= k, of the
    mean of i .. j."""
    total = torch.nn.functional.pad((values * weight).cumsum(0), (1, 0))
    mass = torch.nn.functional.pad(weight.cumsum(0), (1, 0))
    mean = (total[None, 1:] - total[:-1, None]) / (mass[None, 1:] - mass[:-1, None]).clamp(min=1e-300)
    j = torch.arange(len(values), device=values.device)
    i = j[:, None]
    least = mean.masked_fill(i > j, torch.inf).flip(1).cummin(1).values.flip(1)  # over the ends j >= k
    return least.masked_fill(i > j, -torch.inf).amax(0)


@MODIFIERS.register("warp")
class Warp(Modifier):
    """Times are drawn evenly in the loss: t = F^-1(u), F(t) the mean loss at t, scaled to end at 1 (CDCD, Dieleman et
    al. 2022, section 3.3).

    F is linear in each of K bins of the base curve's time.  Its knots come from the increasing sequence nearest to the
    bins' mean losses by squares, which is what the paper's gradient descent minimises; recent losses count most.
    """

    decay, least = 0.9, 0.01  # of the sums at each fit; share of the draws that all times have alike
    total: Tensor
    count: Tensor
    knots: Tensor  # F at the ends of the bins

    def __init__(self, factor: float = 1.0):
        super().__init__(factor)
        self.register_buffer("total", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("knots", torch.linspace(0, 1, BINS + 1, dtype=torch.float64))

    def time(self, u: Tensor, curve: Curve | DiscreteCurve) -> Tensor:
        k, start, width = self._drawn_bin(u)
        return (k + (u - start) / width) / BINS

    def _drawn_bin(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bin that each u is in, where in u it begins, and how wide it is there."""
        knots = self.knots.to(u.device)
        k = (torch.searchsorted(knots, u.contiguous(), right=True) - 1).clamp(0, BINS - 1)
        return k, knots[k], knots[k + 1] - knots[k]

    @torch.no_grad()
    def observe(self, t: Tensor, loss: Tensor, error: Tensor | None, mask: Tensor) -> None:
        k, finite = bin_of(t), loss.isfinite()
        count = torch.zeros_like(self.count).index_add_(0, k, finite.double())
        total = torch.zeros_like(self.total).index_add_(0, k, loss.detach().double().where(finite, 0.0))
        sum_over_ranks(total, count)
        self.total.add_(total)
        self.count.add_(count)

    @torch.no_grad()
    def update(self, table: Tensor, curve: Curve | DiscreteCurve) -> None:
        """Bins that no time has been drawn in take part without weight; before any has, times stay even."""
        loss = increasing(self.total / self.count.clamp(min=1e-300), self.count).clamp(min=0)
        middle = (loss[1:] + loss[:-1]) / 2
        last = loss[-1:] + (loss[-1:] - loss[-2:-1]) / 2
        rise = torch.cat([middle[:1], middle.diff(), last - middle[-1:]])
        self._set_shares(rise / rise.sum().clamp(min=1e-300))

    def _set_shares(self, share: Tensor) -> None:
        """Of the draws that each bin [K] has from now on; even where nothing was observed, or nothing costs."""
        even = torch.full_like(share, 1 / BINS)
        known = (self.count.sum() > 0) & (share.sum() > 0)
        reached = torch.where(known, torch.lerp(share, even, self.least), even).cumsum(0)
        self.knots[1:].copy_(reached / reached[-1])
        self.total.mul_(self.decay)
        self.count.mul_(self.decay)


@MODIFIERS.register("least_variance")
class LeastVariance(Warp):
    """Times are drawn so that the estimate of the loss has the least variance, which leaves its mean as it is: as often
    as the root of the mean squared loss at t (Kingma et al. 2021, appendix I.2).

    The levels of noise are so placed in time as those of a learned gamma(t) would be whose gradient is that of the
    squared loss.
    """

    def weight(self, u: Tensor) -> Tensor:
        return 1 / (BINS * self._drawn_bin(u)[2])

    def observe(self, t: Tensor, loss: Tensor, error: Tensor | None, mask: Tensor) -> None:
        super().observe(t, loss.detach().double().square(), error, mask)

    @torch.no_grad()
    def update(self, table: Tensor, curve: Curve | DiscreteCurve) -> None:
        """Bins that no time has been drawn in count like the mean of the others."""
        seen = self.count > 0
        root = (self.total / self.count.clamp(min=1e-300)).sqrt()
        root = torch.where(seen, root, root[seen].mean() if seen.any() else 1.0)
        self._set_shares(root / root.sum().clamp(min=1e-300))


@MODIFIERS.register("position")
class PositionTable(Modifier):
    """Each position has levels of its own, so that its loss rises evenly with time (Yuan et al. 2024, SeqDiffuSeq,
    section 3.3).

    At each fit, the mean losses of a position in K bins of time, made increasing, and the shares abar there are knots;
    from then on abar at time t is that of the loss (1 - t) min + t max on the line through them.  The first position,
    <s>, keeps the curve; those behind the last share its levels.
    """

    places, by_error = 64, True
    first_fit, least, points = 3, 1e-5, 20  # fits that are left out; rise between bins; times in a bin
    total: Tensor
    count: Tensor
    loss: Tensor
    share: Tensor
    periods: Tensor

    def __init__(self, factor: float = 1.0):
        super().__init__(factor)
        for name, bins in (("total", BINS), ("count", BINS), ("loss", BINS + 2), ("share", BINS + 2)):
            self.register_buffer(name, torch.zeros(bins, self.places, dtype=torch.float64))
        self.register_buffer("periods", torch.zeros((), dtype=torch.float64))

    def level(
        self,
        t: Tensor,
        sigma: Tensor,
        factor: float | None = None,
        positions: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Level:
        if positions is None:
            return super().level(t, sigma, factor)
        return super().level(t, self._sigma(t, sigma, positions), factor)

    def _sigma(self, t: Tensor, sigma: Tensor, positions: Tensor) -> Tensor:
        """sigma at times t [B, 1], where the curve has sigma [B, 1], of positions [L] -> [B, L]."""
        place = positions.clamp(max=self.places - 1)
        loss, share = (knots.to(t.device).T[place].contiguous() for knots in (self.loss, self.share))
        wanted = torch.lerp(loss[:, :1], loss[:, -1:], t.T)
        above = torch.searchsorted(loss, wanted).clamp(1, loss.shape[-1] - 1)
        low, high, before, after = (x.gather(-1, i) for x in (loss, share) for i in (above - 1, above))
        fitted = torch.lerp(before, after, ((wanted - low) / (high - low)).clamp(0, 1)).T
        of_its_own = (self.periods.to(t.device) > self.first_fit) & (place > 0) & (t > 0)
        return torch.where(of_its_own, (1 - fitted).clamp(min=0).sqrt(), sigma)

    @torch.no_grad()
    def observe(self, t: Tensor, loss: Tensor, error: Tensor | None, mask: Tensor) -> None:
        assert error is not None  # models without one are refused
        k, width = bin_of(t), min(self.places, mask.shape[1])
        real = (mask & error.isfinite())[:, :width]
        count, total = torch.zeros_like(self.count), torch.zeros_like(self.total)
        count[:, :width].index_add_(0, k, real.double())
        total[:, :width].index_add_(0, k, error.detach().double()[:, :width].where(real, 0.0))
        sum_over_ranks(total, count)
        self.total.add_(total)
        self.count.add_(count)

    @torch.no_grad()
    def update(self, table: Tensor, curve: Curve | DiscreteCurve) -> None:
        """A fit, from the third period on; each begins with one loss in every bin, on a line from 0 to 0.5."""
        due = (self.periods >= self.first_fit) & (self.count.sum() > 0)
        line = torch.linspace(0, 0.5, BINS, dtype=torch.float64, device=self.total.device)[:, None]
        mean = (self.total + line) / (self.count + 1)
        rise = self.least * torch.arange(BINS, device=mean.device)[:, None]
        mean = (mean - rise).cummax(0).values + rise
        loss = torch.cat([(3 * mean[:1] - mean[1:2]) / 2, mean, (3 * mean[-1:] - mean[-2:-1]) / 2])
        t = torch.arange(1, BINS * self.points + 1, device=mean.device).double()[:, None] / (BINS * self.points)
        now = 1 - self._sigma(t, curve.sigma(t), torch.arange(self.places, device=mean.device)).square()
        middle = now.unflatten(0, (BINS, -1)).mean(1)
        share = torch.cat([now.amax().expand_as(middle[:1]), middle, now.amin().expand_as(middle[:1])])
        self.loss.copy_(torch.where(due, loss, self.loss))
        self.share.copy_(torch.where(due, share, self.share))
        for sums in (self.total, self.count):
            sums.mul_(~due)
        self.periods.add_(1)
