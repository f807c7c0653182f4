"""Glancing: a chain along the decoder's blocks that reveals more and more of the target.

Every position shows the mask until it is revealed, and its own word from then on; behind block s of T a share kappa_s
of them is revealed, kappa_0 = 0, kappa_T = 1.  In training what is shown are true words: *glancing*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.registry import Registry

# -- how much is revealed behind each block -------------------------------------------------------------------------

KEEPS: Registry[Callable[[float], float]] = Registry("keep schedule")
KEEPS.register("linear")(lambda time: time)
KEEPS.register("cosine")(lambda time: 1 - math.cos(math.pi / 2 * time))
KEEPS.register("none")(lambda time: float(time == 1))


def keep_schedule(name: str, blocks: int) -> list[float]:
    """kappa_0 ... kappa_T, from 0 to 1."""
    return [*(KEEPS[name](s / blocks) for s in range(blocks)), 1.0]


# -- where: subsets of positions ------------------------------------------------------------------------------------


def ranks(x: Tensor) -> Tensor:
    """The place of each entry of x [..., L] among those of its row, largest first; of equals, the first."""
    return x.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def choose(among: Tensor, count: Tensor, keys: Tensor) -> Tensor:
    """`count` [B] positions drawn uniformly from those in `among` [B, L], as a mask [B, L]."""
    return surest(noise.uniform(keys, among.shape[-1]), among, count)


def surest(log_p: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """The `count` [B] positions of highest log_p [B, L] from those in `among` [B, L], as a mask [B, L]."""
    return among & (ranks(log_p.masked_fill(~among, -torch.inf)) < count[:, None])


# -- glancing: what a target shows of itself in training ------------------------------------------------------------


class Boundary(NamedTuple):
    """The place before block s + 1, counted from 0, with what may be revealed there."""

    s: int
    hidden: Tensor  # [B, L], positions that have a word to be revealed
    wrong: Tensor  # [B, L], those of them where the model predicts another word
    keys: Tensor  # [B]
    remainder: Tensor  # [B], fp64, the fractional part of the count that earlier boundaries have left


@dataclass(frozen=True)
class Glance:
    """Residual glancing: at each boundary some of what is still hidden is shown, by a rule named `count`."""

    count: str = "adaptive"
    source: str = "wrong"
    start: float = 0.5
    end: float = 0.3
    updates: int = 300_000
    blocks: int = 1
    keep: str = "linear"
    two_pass: bool = False

    @property
    def first(self) -> int:
        """The first boundary where something may be shown: before the first block only an earlier pass knows what is
        wrong, and only a rule that does not use it needs none."""
        return int(not self.two_pass and self.count != "uniform")

    @property
    def ever(self) -> bool:
        """Whether true words are shown in training at all."""
        return any(self.shows(s, update) for s in range(self.blocks) for update in (0, self.updates))

    def shows(self, s: int, update: int) -> bool:
        """Whether boundary s may show anything at all."""
        if self.count == "adaptive":
            return s >= self.first and self.share(update) > 0
        return s == 0 if self.count == "uniform" else self.hazard(s) > 0

    def ratio(self, update: int) -> float:
        """rho(u), from `start` to `end` in a straight line."""
        return self.start + (self.end - self.start) * min(1.0, update / self.updates)

    def share(self, update: int) -> float:
        """rho_s = 1 - (1 - rho)^(1 / boundaries): what is hidden after all of them is 1 - rho, in however many."""
        boundaries = self.blocks - self.first
        return 1 - (1 - self.ratio(update)) ** (1 / boundaries) if boundaries else 0.0

    def hazard(self, s: int) -> float:
        """Probability that a position still hidden is revealed at boundary s: (kappa_s - kappa_(s-1)) / (1 - ...)."""
        kappa = keep_schedule(self.keep, self.blocks)
        return (kappa[s] - kappa[s - 1]) / (1 - kappa[s - 1]) if s else 0.0

    def __call__(self, boundary: Boundary, update: int) -> tuple[Tensor, Tensor]:
        """The positions to reveal, [B, L], and the remainder for the next boundary, [B]."""
        return COUNTS[self.count](self, boundary, update)


Count = Callable[[Glance, Boundary, int], "tuple[Tensor, Tensor]"]
COUNTS: Registry[Count] = Registry("glancing count")
SOURCES = ("wrong", "any")


@COUNTS.register("adaptive")
def adaptive(glance: Glance, boundary: Boundary, update: int) -> tuple[Tensor, Tensor]:
    """rho_s |wrong| of the wrong positions, or of all hidden ones: who errs less is shown less.

    The count is rounded down, and the remainder carried to the next boundary: a sixth of three wrong words would be
    none at each of six boundaries.
    """
    due = boundary.remainder + boundary.wrong.sum(-1).double() * glance.share(update)
    count = (due + 1e-9).long()
    among = boundary.wrong if glance.source == "wrong" else boundary.hidden
    return choose(among, count, boundary.keys), due - count


@COUNTS.register("schedule")
def by_schedule(glance: Glance, boundary: Boundary, update: int) -> tuple[Tensor, Tensor]:
    """Each hidden position with the process' own probability, whatever the model predicts there."""
    drawn = noise.uniform(boundary.keys, boundary.hidden.shape[-1])
    return boundary.hidden & (drawn < glance.hazard(boundary.s)), boundary.remainder


@COUNTS.register("uniform")
def uniform(glance: Glance, boundary: Boundary, update: int) -> tuple[Tensor, Tensor]:
    """Before the first block all but k ~ U{1 .. n} of the n hidden positions, and none later (masked training)."""
    if boundary.s:
        return torch.zeros_like(boundary.hidden), boundary.remainder
    left = noise.uniform(noise.fold(boundary.keys, 1), 1)[:, 0] * boundary.hidden.sum(-1)
    return choose(boundary.hidden, left.long(), boundary.keys), boundary.remainder
