"""The two grids of a sampler: where the sample is, and what the network is told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.schedule import Schedule


@dataclass(frozen=True)
class Grid:
    """Times [M + 1] in fp64, from noise to data, and their levels [M + 1, 1, 1] in fp32, ready before the loop."""

    where: Tensor
    told: Tensor
    level: Level
    told_level: Level

    @property
    def steps(self) -> int:
        return len(self.where) - 1


def even_times(start: float, end: float, steps: int) -> Tensor:
    """steps + 1 times from start down to end, fp64."""
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def levels(schedule: Schedule, t: Tensor, device: torch.device | str) -> Level:
    level = schedule.level(t[:, None, None])
    return Level(level.alpha.float().to(device), level.sigma.float().to(device))


def make_grid(
    schedule: Schedule,
    steps: int,
    final_time: float = 1e-3,
    told: tuple[float, float] | None = None,
    device: torch.device | str = "cpu",
) -> Grid:
    """Evenly spaced times from 1 to `final_time`; `told` gives the noise levels *sigma* between which the network's
    times run instead of the true ones, as in CeDi's 1 to 0.99 (DINOISER section 4.2 and its footnote 5)."""
    if steps < 1:
        raise UserError(f"{steps} decoding steps were asked for; --iter-decode-max-iter takes 1 or more")
    if not 0 < final_time < 1:
        raise UserError(f"the final time {final_time} is outside (0, 1); --final-time 0.001 is usual")
    where = even_times(1, final_time, steps)
    if told is None:
        return Grid(where, where, levels(schedule, where, device), levels(schedule, where, device))
    high, low = told
    if not 0 < low <= high <= 1:
        raise UserError(
            f"the network cannot be told noise from {high} down to {low}; --told-start and --told-end are noise "
            "levels sigma with 0 < end <= start <= 1, for example 1 and 0.99"
        )
    start, end = (schedule.time(times(sigma)).item() for sigma in told)
    telling = even_times(start, end, steps)
    return Grid(where, telling, levels(schedule, where, device), levels(schedule, telling, device))
