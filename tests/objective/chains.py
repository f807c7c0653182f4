"""Chains so small that -log p(y | x) and its bound are sums: over all words of two positions, or over a line."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import Symbols
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.states.embedding import EmbeddingState
from fairseq_diffusion.states.tokens import TokenState

BOS, PAD, EOS, UNK = range(4)
V = MASK = 7  # words 4 to 6, and the specials
FREE = list(product(range(V + 1), repeat=2))  # what two positions may hold

# -- words ------------------------------------------------------------------------------------------------------------


class Words:
    """A state, and a network with random weights that sees both positions and the time, and no source."""

    def __init__(self, share: float, sharpness: float = 1.0, tags: tuple[int, ...] = ()):
        torch.manual_seed(3)
        hides = share > 0
        self.state = TokenState(V + hides, 5, Symbols(BOS, PAD, EOS, V if hides else -1, UNK, tags), share)
        self.drawn = [word for word in range(UNK + 1, V) if word not in tags]
        self.maps = [torch.randn(2 * (V + 1) + 1, 12), torch.randn(12, 10) * sharpness]

    def denoise(self, s_t: Tensor, t: Tensor) -> Tensor:
        """s_t [N, 4], t [N] -> [N, 4, 5]; padding and ends have no estimate of their own."""
        seen = torch.nn.functional.one_hot(s_t[:, 1:3], V + 1).flatten(1).float()
        middle = (torch.cat([seen, t[:, None].float()], 1) @ self.maps[0]).tanh() @ self.maps[1]
        return torch.nn.functional.pad(middle.view(-1, 2, 5), (0, 0, 1, s_t.shape[1] - 3))

    def estimates(self, t: float) -> Tensor:
        """p(y_0 | y_t) of each position, for everything that may be there: [(V + 1)^2, 2, V] in fp64."""
        s_t = torch.tensor([[BOS, *pair, EOS] for pair in FREE])
        found = self.denoise(s_t, torch.full((len(s_t),), t))[:, 1:3]
        return (found.double() @ self.state.readout().double().T).softmax(-1)

    def kernel(self, a: Tensor) -> Tensor:
        """q(column | row) from clean words to a share a that is kept, [V + 1, V + 1]."""
        share, q = self.state.kernel.mask_share, torch.zeros(V + 1, V + 1).double()
        q[:V, :V] = a * torch.eye(V)
        q[:V, self.drawn] += (1 - share) * (1 - a) / len(self.drawn)
        q[:V, V] = share * (1 - a)
        q[V, V] = 1
        return q

    def posteriors(self, a_s: Tensor, a_t: Tensor) -> Tensor:
        """q(y_s | y_t, y_0), [y_0, y_t, y_s]; nothing where y_0 cannot become y_t."""
        until = self.kernel(a_s)
        m_s, m_t = until[0, V], self.kernel(a_t)[0, V]
        step = torch.zeros(V + 1, V + 1).double()
        kept, m = a_t / a_s, (m_t - m_s) / (1 - m_s)
        step[:V, :V] = kept * torch.eye(V)
        if self.state.replaces:  # else 0, but for rounding
            step[:V, self.drawn] += (1 - kept - m) / len(self.drawn)
        step[:V, V], step[V, V] = m, 1
        joint = until[:V, None, :] * step.T[None]
        return (joint / joint.sum(-1, keepdim=True)).nan_to_num(0.0)

    def back(self, t: float, a_s: Tensor, a_t: Tensor) -> Tensor:
        """p(y_s | y_t) of each position, [(V + 1)^2, 2, V + 1]: the mixture over what is possible."""
        p, posterior = self.estimates(t), self.posteriors(a_s, a_t)
        here = torch.tensor(FREE)
        mixture = torch.einsum("npj,jnpk->npk", p, posterior[:, here])
        return (mixture / mixture.sum(-1, keepdim=True)).nan_to_num(0.0)

    def nll(self, words: tuple[int, int], kept: list[Tensor]) -> float:
        """-log p(y): everything that may be at each of T levels is summed out; `kept` has a_0 = 1 to a_T = 0."""
        noise = self.kernel(torch.tensor(0.0))[4]
        p = torch.stack([noise[i] * noise[j] for i, j in FREE])
        for i in range(len(kept) - 1, 0, -1):
            back = self.back(i / (len(kept) - 1), kept[i - 1], kept[i])
            p = torch.einsum("n,na,nb->ab", p, back[:, 0], back[:, 1]).flatten()
        return -float(p[FREE.index(words)].log())

    def bound(self, words: tuple[int, int], kept: list[Tensor]) -> float:
        """The sum over all levels, and all that may be there, of the divergences."""
        total = 0.0
        for i in range(1, len(kept)):
            q_t, posterior = self.kernel(kept[i]), self.posteriors(kept[i - 1], kept[i])
            back = self.back(i / (len(kept) - 1), kept[i - 1], kept[i])
            for n, pair in enumerate(FREE):
                for place, (word, here) in enumerate(zip(words, pair)):
                    chance = q_t[words[0], pair[0]] * q_t[words[1], pair[1]]
                    if chance > 0:
                        q, p = posterior[word, here], back[n, place]
                        total += float(chance * torch.where(q > 0, q * (q / p.where(q > 0, 1.0)).log(), 0.0).sum())
        return total


# -- numbers ----------------------------------------------------------------------------------------------------------


class Numbers:
    """Points on a line as words; the network has the mean of x_0 given x_t if all are as probable, times `squeeze`."""

    def __init__(self, schedule: Any, squeeze: float = 1.0, points: tuple[float, ...] = (-2.0, -0.5, 1.5)):
        self.state, self.schedule, self.squeeze = EmbeddingState(len(points), 1, "none"), schedule, squeeze
        self.state.weight.data = torch.tensor(points)[:, None]

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t [N, L, 1], t [N] -> [N, L, 1]."""
        level, x = self.schedule.level(t.view(-1, 1, 1)), self.state.weight[:, 0].double()
        weight = (-((x_t.double() - level.alpha * x) / level.sigma).square() / 2).softmax(-1)
        return (self.squeeze * weight @ x)[..., None].float()

    def read(self, line: Tensor, t: float) -> Tensor:
        """log p(y | x_t) at points [P], [P, V] in fp64."""
        estimate = self.denoise(line.view(-1, 1, 1).float(), torch.full((len(line),), t).double())
        return (estimate[:, 0].double() @ self.state.readout().double().T).log_softmax(-1)

    def nll(self, times: Tensor, points: int = 1201, width: float = 8.0) -> Tensor:
        """-log p(y) of each word, [V]: all levels are integrated out on a line."""
        line = torch.linspace(-width, width, points).double() * float(self.levels(times).sigma[-1])
        p = normal(line, torch.zeros(1).double(), self.levels(times).sigma[-1].square())
        for i in range(len(times) - 1, 0, -1):
            estimate = self.denoise(line.view(-1, 1, 1).float(), times[i].expand(len(line)))[:, 0, 0].double()
            mean, variance = posterior(self.levels(times)[i - 1], self.levels(times)[i], line, estimate)
            p = normal(line[:, None], mean, variance) @ p * (line[1] - line[0])
        return -((self.read(line, float(times[0])).exp().T @ p) * (line[1] - line[0])).log()

    def bound(self, times: Tensor, points: int = 4001) -> Tensor:
        """The bound of each word, [V]: expectations over eps are integrals."""
        eps = torch.linspace(-8, 8, points).double()
        weight, x_0 = normal(eps, torch.zeros(1).double(), torch.ones(1).double()) * (eps[1] - eps[0]), []
        level = self.levels(times)
        for word, x in enumerate(self.state.weight[:, 0].double()):
            found = float((level.alpha[-1] * x / level.sigma[-1]).square() / 2)
            seen = level.alpha[0] * x + level.sigma[0] * eps
            found -= float(weight @ self.read(seen, float(times[0]))[:, word])
            for i in range(1, len(times)):
                x_t = level.alpha[i] * x + level.sigma[i] * eps
                estimate = self.denoise(x_t.view(-1, 1, 1).float(), times[i].expand(points))[:, 0, 0].double()
                (mean, variance), (other, _) = (posterior(level[i - 1], level[i], x_t, to) for to in (x, estimate))
                found += float(weight @ (mean - other).square() / (2 * variance))
            x_0.append(found)
        return torch.tensor(x_0)

    def levels(self, times: Tensor) -> Level:
        return self.schedule.level(times)


def normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (-(x - mean).square() / (2 * variance)).exp() / (2 * torch.pi * variance).sqrt()


def posterior(before: Level, now: Level, x_t: Tensor, x_0: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_s | x_t, x_0), by Bayes' rule: precisions add up."""
    ratio = now.alpha / before.alpha
    forward = now.sigma.square() - ratio.square() * before.sigma.square()
    precision = 1 / before.sigma.square() + ratio.square() / forward
    return (before.alpha * x_0 / before.sigma.square() + ratio * x_t / forward) / precision, 1 / precision
