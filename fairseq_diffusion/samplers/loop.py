"""The sampling loop: the only place that counts network calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Protocol, Sequence

import torch
from torch import Tensor

from fairseq_diffusion.samplers.early_exit import Roster
from fairseq_diffusion.samplers.gaussian import Step
from fairseq_diffusion.samplers.grid import Grid


class Batch(Protocol):
    """What the loop asks of S sentences with K candidates each; D is the width of the state."""

    def noise(self, i: int) -> Tensor:
        """The i-th N(0, 1) of each candidate, [S, K, L, D]."""

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """x_0-hat [S, K, L, D] from x_t and the self-condition c, both [S, K, L, D], told the time t []."""

    def denoise_without_source(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_0-hat [S, K, L, D] by a network that sees neither the source nor an earlier estimate."""

    def select(self, sentences: Tensor, members: Tensor) -> Batch:
        """The batch of some sentences [S'] and some candidates of each, [S', K']."""


@dataclass(frozen=True)
class Sample:
    """Each candidate's last clean estimate, the network calls it took part in, and whether it was not pruned."""

    x_0: Tensor  # [S, K, L, D]
    calls: Tensor  # [S, K]
    alive: Tensor  # [S, K]
    left: int  # of each sentence's candidates, so many were not pruned


@dataclass(frozen=True)
class Refinement:
    """What is done to each clean estimate before anything else sees it.

    `guidance` w is classifier-free (Ho and Salimans 2022): x_0 = u + w (x_0 - u) with u the estimate without a source.
    """

    guidance: float = 1.0
    clamp: Callable[[Tensor], Tensor] | None = None

    @property
    def calls(self) -> int:
        return 1 if self.guidance == 1 else 2

    def __call__(self, batch: Batch, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        if self.guidance != 1:
            x_0 = torch.lerp(batch.denoise_without_source(x_t, t), x_0, self.guidance)
        return x_0 if self.clamp is None else self.clamp(x_0)


@torch.no_grad()
def sample(
    batch: Batch,
    grid: Grid,
    steps: Sequence[Step],
    refine: Refinement = Refinement(),
    roster: Roster | None = None,
    on_step: Callable[[Roster, Tensor], None] | None = None,
) -> Sample:
    """Walk `steps` over `grid` from noise; each estimate conditions the next.

    `roster` decides who leaves the batch on the way; `on_step(roster, x_0)` sees each estimate.
    """
    x = grid.level.sigma[0] * batch.noise(0)  # a number on the host: nothing waits for it
    roster = roster or Roster(x.shape[0], x.shape[1], device=x.device)
    told, x_0 = grid.told.float().to(x.device, non_blocking=True), torch.zeros_like(x)
    for i, step in enumerate(steps):
        previous, x_0 = x_0, refine(batch, x, told[i], batch.denoise(x, told[i], x_0))
        roster.called(refine.calls)
        if on_step is not None:
            on_step(roster, x_0)
        if i + 1 == len(steps):
            break
        x = step(x, x_0, previous, batch.noise(i + 1) if step.noise else None)
        if (kept := roster.leave(i + 1, x_0)) is not None:
            x, x_0 = kept(x), kept(x_0)
            if not len(x):
                break
            batch = batch.select(*kept)
    return Sample(roster.last(x_0), roster.calls, roster.alive, roster.left)
