"""Which candidates are still in the batch: the worse half may be dropped, and those that have converged may stop."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.network.joint import each

CHECK_EVERY = 4  # steps after which the host asks the device who has finished: each time it has to wait


class Kept(NamedTuple):
    """Rows that stay: sentences [S'] of the batch, and candidates of each, [S', K']."""

    sentences: Tensor
    members: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x [S, K, ...] -> [S', K', ...]."""
        return x[self.sentences[:, None], self.members]


class ActiveRows:
    """The S x K candidates and which of them are in the batch, [S', K']; here, all of them to the end."""

    def __init__(self, sentences: int, candidates: int, device: torch.device | str = "cpu"):
        shape = sentences, candidates
        self.calls = torch.zeros(shape, dtype=torch.long, device=device)  # network calls each candidate took part in
        self.alive = torch.ones(shape, dtype=torch.bool, device=device)  # not dropped; as many in each sentence
        self.finished = torch.zeros_like(self.alive)  # keep the estimate that they have
        self.remaining = candidates  # of each sentence, those alive: known without asking the device
        # where the rows of the batch are among all candidates, to index [S, K, ...] with
        self.index: tuple[Any, Any] = slice(None), slice(None)

    @property
    def stopped(self) -> Tensor:
        """Rows of the batch, [S', K'], that are finished, and in it for the others' sake."""
        return self.finished[self.index]

    def count_calls(self, count: int, sentences: Tensor | None = None) -> None:
        """The network was called `count` times for all rows of the batch, or for these `sentences` of a whole one."""
        self.calls[self.index if sentences is None else sentences] += count

    def drop(self, steps: int, s_t: Tensor, estimate: Tensor) -> Kept | None:
        """The rows that stay behind so many steps, by s_t and the estimates of the batch; None if all do."""
        return None

    def final(self, s: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
        """Where all candidates ended, [S, K, ...], given where those still in the batch are."""
        return s, estimate


class EarlyExit(ActiveRows):
    """Candidates leave on the way; all is decided on their device.

    After the steps in `prune`, the worse half of each sentence's candidates, by mean log-probability, is dropped.
    With `stable` = r > 0 a candidate whose tokens were the same at r checks in a row, one a step, is finished: its
    estimate is kept from then on, so the result does not depend on when its row is taken from the batch.
    """

    def __init__(
        self,
        mask: Tensor,
        read: Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]],
        prune: Collection[int],
        stable: int,
        rounded: Callable[[int], int] = int,
        used: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        """`mask` [S, K, L] is true at real positions; `read` gives tokens and log-probabilities of s_t and estimates
        of the rows at an index; `used` where tokens count, of the real ones, if not all do.

        Where candidates may finish, as many rows are left as are needed, or more if that number is to be `rounded` up.
        """
        sentences, candidates = mask.shape[:2]
        super().__init__(sentences, candidates, mask.device)
        self.mask, self.read, self.prune, self.stable, self.rounded = mask, read, set(prune), stable, rounded
        self.used = used
        members = torch.arange(candidates, device=mask.device).expand(sentences, -1)
        self.index = torch.arange(sentences, device=mask.device)[:, None], members
        self.streak = torch.zeros_like(self.calls)
        self.score = torch.zeros(sentences, candidates, device=mask.device)
        self.tokens = mask.new_full(mask.shape, -1, dtype=torch.long)
        self.ended: list[Tensor] = []

    def final(self, s: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
        for _ in self.prune:  # all had finished before: what else is in the batch must make no difference
            self._halve()
        s, estimate = self._keep(s, estimate)
        return s, estimate

    def drop(self, steps: int, s_t: Tensor, estimate: Tensor) -> Kept | None:
        pruning = steps in self.prune
        if not self.stable and not pruning:
            return None
        self._update(s_t, estimate)
        if pruning:
            self.prune.remove(steps)
            self._halve()
        return self._compact() if pruning or steps % CHECK_EVERY == 0 else None

    def _keep(self, *parts: Tensor) -> list[Tensor]:
        """Enter what the rows have, but not over that of finished candidates; all candidates', [S, K, ...]."""
        if not self.ended:
            self.ended = [each(Tensor.clone, part) for part in parts]
        for ended, part in zip(self.ended, parts):
            each(self._enter, ended, part)
        return self.ended

    def _enter(self, ended: Tensor, part: Tensor) -> Tensor:
        """The part [S', K', ...] of the rows in the batch, in that of all, [S, K, ...]."""
        stopped = self.stopped.view(*part.shape[:2], *[1] * (part.dim() - 2))
        ended[self.index] = torch.where(stopped, ended[self.index], part)
        return ended

    def _update(self, s_t: Tensor, estimate: Tensor) -> None:
        """Enter estimates, scores, tokens, and for how many checks these have been the same."""
        self._keep(s_t, estimate)
        tokens, log_p = self.read(s_t, estimate, self.index)
        mask, finished = self.mask[self.index], self.stopped
        mask = mask if self.used is None else self.used(tokens, mask)
        score = torch.where(mask, log_p, 0).sum(-1) / mask.sum(-1)
        self.score[self.index] = torch.where(finished, self.score[self.index], score)
        same = ((tokens == self.tokens[self.index]) | ~mask).all(-1)
        streak = torch.where(same, self.streak[self.index] + 1, 0)
        self.tokens[self.index], self.streak[self.index] = tokens, streak
        if self.stable:
            self.finished[self.index] = finished | (streak >= self.stable)

    def _halve(self) -> None:
        """Keep the better half, rounded up, of each sentence's candidates."""
        self.remaining = (self.remaining + 1) // 2
        best = self.score.masked_fill(~self.alive, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        self.alive = torch.zeros_like(self.alive).scatter(1, best[:, : self.remaining], True)

    def _compact(self) -> Kept | None:
        """The smallest rectangle of rows that holds all that still need calls, in their order."""
        needed = (self.alive & ~self.finished)[self.index]
        width, sentences = self.remaining, torch.arange(len(needed), device=needed.device)
        if self.stable:  # who has finished is known to the device alone
            occupied = needed.any(-1)
            rows, columns = torch.stack([occupied.sum(), needed.sum(-1).max()]).tolist()
            sentences = (~occupied).long().argsort(stable=True)[: self.rounded(rows)].sort().values
            width = min(self.rounded(columns), needed.shape[1])
        if len(sentences) == needed.shape[0] and width >= needed.shape[1]:
            return None
        order = (~needed[sentences]).long().argsort(dim=-1, stable=True)[:, :width].sort(-1).values
        kept, (rows, members) = Kept(sentences, order), self.index
        self.index = rows[sentences], kept(members)
        return kept
