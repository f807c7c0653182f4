"""Two arithmetics for sums over paths in a graph: a step along the links in scaled numbers, or in logarithms.

Both take and give logarithms of masses on vertices; they differ in how a step is computed, and in what may get lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAP = 690.0  # nats: exp overflows at 709 and is 0 below -745, so what a gap of 690 loses is under e^-50 of the sum
LOWEST = -1e300  # finite, so that -inf less the largest of a row of -inf is no NaN


def scales(x: Tensor) -> Tensor:
    """The largest of each row of logarithms x [..., L] -> [..., 1], finite."""
    return x.amax(-1, keepdim=True).clamp(min=LOWEST)


class Scaled:
    """log(exp(x - max x) E) + max x with E = exp(links), all in fp64: a step is one product of a vector and a matrix.

    What lies more than 745 nats under the largest vertex is lost; `trusted` is true where that cannot have mattered.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    @classmethod
    def of(cls, links: Tensor) -> Scaled:
        """links [B, L, L] in fp64, -inf where there is none; overwritten."""
        return cls(links.exp_())

    def arrive(self, x: Tensor) -> Tensor:
        """log sum_i exp(x(i)) E(i -> j), [B, L] -> [B, L]."""
        return self._step(x, self.weights)

    def leave(self, y: Tensor) -> Tensor:
        """log sum_j E(i -> j) exp(y(j)), [B, L] -> [B, L]."""
        return self._step(y, self.weights.transpose(1, 2))

    @staticmethod
    def _step(x: Tensor, weights: Tensor) -> Tensor:
        # A row times a matrix, never a matrix times a column: on a CPU that is four times slower.
        shift = scales(x)
        return torch.bmm((x - shift).exp_()[:, None], weights)[:, 0].log_().add_(shift)

    def trusted(self, alpha: Tensor, y: Tensor, log_p: Tensor) -> Tensor:
        """Whether the sum log_p [B] is the sum over all paths, for prefixes alpha and suffixes y [B, M, L] -> [B].

        A prefix that was lost before word t is under e^-745 of the best one, so its paths weigh less than
        e^(max alpha_t + max y_t+1 - 745): small against log_p if the gap is small.  Only a path of which both passes
        lost their part escapes.
        """
        gap = alpha[:, :-1].amax(-1) + y[:, 1:].amax(-1) - log_p[:, None]
        return (log_p > -torch.inf) & ~(gap > GAP).any(-1)

    def pairs(self, alpha: Tensor, y: Tensor, log_p: Tensor) -> Tensor:
        """sum_t exp(alpha_t(i) + link(i, j) + y_t+1(j) - log_p): one product, [B, M, L] twice and [B] -> [B, L, L]."""
        prefix, suffix = alpha[:, :-1], y[:, 1:]
        shift = scales(prefix)
        suffix = (suffix + (shift - log_p[:, None, None])).exp_()
        return torch.bmm((prefix - shift).exp_().transpose(1, 2), suffix).mul_(self.weights)


class LogSpace(Scaled):
    """The same in logarithms: nothing is lost, but a step makes B L^2 exponentials."""

    @classmethod
    def of(cls, links: Tensor) -> LogSpace:
        return cls(links)

    def arrive(self, x: Tensor) -> Tensor:
        return (x[:, :, None] + self.weights).logsumexp(1)

    def leave(self, y: Tensor) -> Tensor:
        return (self.weights + y[:, None]).logsumexp(2)

    def trusted(self, alpha: Tensor, y: Tensor, log_p: Tensor) -> Tensor:
        """Every sum that is not empty, [B]."""
        return log_p > -torch.inf

    def pairs(self, alpha: Tensor, y: Tensor, log_p: Tensor) -> Tensor:
        total, y = torch.zeros_like(self.weights), y - log_p[:, None, None]
        for prefix, suffix in zip(alpha.unbind(1), y.unbind(1)[1:]):
            total += (self.weights + prefix[:, :, None]).add_(suffix[:, None]).exp_()
        return total


FORMS: dict[str, type[Scaled]] = {"scaled": Scaled, "log": LogSpace}
