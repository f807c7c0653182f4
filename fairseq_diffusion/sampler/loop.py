"""The sampling loop: the only place that counts network calls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Callable

import torch
from torch import Tensor

from fairseq_diffusion.sampler.grid import Grid
from fairseq_diffusion.sampler.rules import Rule, Step

# (x_t [B, L, D], told time [B], self-condition [B, L, D]) -> x_0-hat [B, L, D]
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sample:
    """The last clean estimate, and how many network calls led to it."""

    x_0: Tensor  # [B, L, D]
    calls: int


@torch.no_grad()
def sample(
    denoise: Denoise,
    x_T: Tensor,
    grid: Grid,
    rule: Rule,
    noise: Callable[[int], Tensor],
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Sample:
    """Run `rule` over `grid` from x_T [B, L, D].

    `noise(i)` draws step i's N(0, 1); `on_step(i, x_0)` sees each clean estimate.  Each estimate conditions the next.
    """
    x, x_0, calls = x_T, torch.zeros_like(x_T), 0
    told = grid.told.float().to(x_T.device)
    for i in range(grid.steps):
        x_0 = denoise(x, told[i].expand(len(x)), x_0)
        calls += 1
        if on_step is not None:
            on_step(i, x_0)
        x = rule(x, x_0, Step(grid.told_level[i], grid.level[i], grid.level[i + 1], partial(noise, i)))
    return Sample(x_0, calls)
