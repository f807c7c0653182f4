"""Which candidates are still in the batch: pruning of the worse half, and a stop for those that have converged."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor

LOOK = 4  # the host asks the device who has finished every so many steps, and not at each


class Kept(NamedTuple):
    """Rows that stay: sentences [S'] of the batch, and candidates of each, [S', K']."""

    sentences: Tensor
    members: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x [S, K, ...] -> [S', K', ...]."""
        return x[self.sentences[:, None], self.members]


class Roster:
    """Books of S x K candidates; in this one, everybody stays to the end."""

    def __init__(self, sentences: int, candidates: int, device: torch.device | str = "cpu"):
        self.shape, self.device = (sentences, candidates), device
        self.left = candidates  # of each sentence, those that were not pruned: known without asking the device
        self.total = 0

    @property
    def here(self) -> tuple[Any, Any]:
        """Where the rows of the batch, [S', K'], are in the books."""
        return slice(None), slice(None)

    @property
    def held(self) -> Tensor:
        """Rows of the batch whose estimates no longer count, [S', K']: others go on beside them."""
        return torch.zeros(self.shape, dtype=torch.bool, device=self.device)

    @property
    def calls(self) -> Tensor:
        """Network calls that each candidate took part in, [S, K]."""
        return torch.full(self.shape, self.total, device=self.device)

    @property
    def alive(self) -> Tensor:
        """Candidates that were not pruned, [S, K]; as many in each sentence."""
        return torch.ones(self.shape, dtype=torch.bool, device=self.device)

    def called(self, count: int) -> None:
        """The network was called `count` times for all rows of the batch."""
        self.total += count

    def leave(self, steps: int, x_0: Tensor) -> Kept | None:
        """Look at the estimates x_0 [S', K', L, D] after so many steps; None if all rows stay."""
        return None

    def last(self, x_0: Tensor) -> Tensor:
        """What every candidate ended with, [S, K, L, D], given the last estimates of those still here."""
        return x_0


class Leaving(Roster):
    """Candidates leave on the way; all is decided on their device.

    After the steps in `prune`, the worse half of each sentence's candidates, by mean log-probability, goes for good.
    With `stable` = r > 0 a candidate whose tokens were the same at r checks in a row, one a step, is finished: what it
    ended with is held from then on, so the result does not depend on when its row is taken from the batch.
    """

    def __init__(
        self,
        mask: Tensor,
        round: Callable[[Tensor], tuple[Tensor, Tensor]],
        prune: Collection[int],
        stable: int,
        rounded: Callable[[int], int] = int,
    ):
        """`mask` [S, K, L] is true at real positions; `round` gives tokens and log-probabilities of estimates.

        With the stop, as many rows are left as are needed, or more if that number is to be `rounded` up.
        """
        super().__init__(mask.shape[0], mask.shape[1], mask.device)
        self.mask, self.round, self.prune, self.stable, self.rounded = mask, round, set(prune), stable, rounded
        self.sentences = torch.arange(self.shape[0], device=mask.device)
        self.members = torch.arange(self.shape[1], device=mask.device).expand(self.shape)
        self.counted = torch.zeros(self.shape, dtype=torch.long, device=mask.device)
        self.surviving = torch.ones(self.shape, dtype=torch.bool, device=mask.device)
        self.finished = torch.zeros_like(self.surviving)
        self.streak = torch.zeros_like(self.counted)
        self.score = torch.zeros(self.shape, device=mask.device)
        self.tokens = mask.new_full(mask.shape, -1, dtype=torch.long)
        self.ended: Tensor | None = None

    @property
    def here(self) -> tuple[Tensor, Tensor]:
        return self.sentences[:, None], self.members

    @property
    def held(self) -> Tensor:
        return self.finished[self.here]

    @property
    def calls(self) -> Tensor:
        return self.counted

    @property
    def alive(self) -> Tensor:
        return self.surviving

    def called(self, count: int) -> None:
        self.counted[self.here] += count

    def last(self, x_0: Tensor) -> Tensor:
        for _ in self.prune:  # all had finished before: whoever else is in the batch must make no difference
            self._halve()
        return self._hold(x_0)

    def leave(self, steps: int, x_0: Tensor) -> Kept | None:
        pruning = steps in self.prune
        if not self.stable and not pruning:
            return None
        self._look(x_0)
        if pruning:
            self.prune.remove(steps)
            self._halve()
        return self._compact() if pruning or steps % LOOK == 0 else None

    def _hold(self, x_0: Tensor) -> Tensor:
        """Enter the rows' estimates, but not over those of finished candidates; [S, K, L, D] of all."""
        if self.ended is None:
            self.ended = x_0.clone()
        held = self.held[..., None, None]
        self.ended[self.here] = torch.where(held, self.ended[self.here], x_0)
        return self.ended

    def _look(self, x_0: Tensor) -> None:
        """Enter estimates, scores, tokens and streaks."""
        self._hold(x_0)
        tokens, log_p = self.round(x_0)
        mask, finished = self.mask[self.here], self.held
        score = torch.where(mask, log_p, 0).sum(-1) / mask.sum(-1)
        self.score[self.here] = torch.where(finished, self.score[self.here], score)
        same = ((tokens == self.tokens[self.here]) | ~mask).all(-1)
        streak = torch.where(same, self.streak[self.here] + 1, 0)
        self.tokens[self.here], self.streak[self.here] = tokens, streak
        if self.stable:
            self.finished[self.here] = finished | (streak >= self.stable)

    def _halve(self) -> None:
        """Keep the better half, rounded up, of each sentence's candidates."""
        self.left = (self.left + 1) // 2
        best = self.score.masked_fill(~self.surviving, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        self.surviving = torch.zeros_like(self.surviving).scatter(1, best[:, : self.left], True)

    def _compact(self) -> Kept | None:
        """The smallest rectangle of rows that holds all who still need calls; sorted, so that order does not change."""
        needed = (self.surviving & ~self.finished)[self.here]
        width, sentences = self.left, torch.arange(len(needed), device=needed.device)
        if self.stable:  # who has finished is known to the device alone
            occupied = needed.any(-1)
            rows, columns = torch.stack([occupied.sum(), needed.sum(-1).max()]).tolist()
            sentences = (~occupied).long().argsort(stable=True)[: self.rounded(rows)].sort().values
            width = min(self.rounded(columns), needed.shape[1])
        if len(sentences) == needed.shape[0] and width >= needed.shape[1]:
            return None
        order = (~needed[sentences]).long().argsort(dim=-1, stable=True)[:, :width].sort(-1).values
        kept = Kept(sentences, order)
        self.sentences, self.members = self.sentences[sentences], kept(self.members)
        return kept
