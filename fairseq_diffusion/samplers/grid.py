"""The two grids of a sampler: where the sample is, and what the network is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.registry import Registry

# A spacing puts M + 1 times between 1 and a final time; the sampler calls the network at the first M of them.
Spacing = Callable[[Schedule, int, float], Tensor]
GRIDS: Registry[Spacing] = Registry("grid")

FINAL_TIME = 1e-3
LOWEST = -4.0  # of log(alpha / sigma) in a grid even in it: pure noise has none


@dataclass(frozen=True)
class Grid:
    """Times and their levels, each [M + 1], from noise to data; fp64, on the host: steps are numbers, not tensors."""

    where: Tensor
    told: Tensor
    level: Level
    told_level: Level

    @property
    def steps(self) -> int:
        return len(self.where) - 1


def even(start: float, end: float, count: int) -> Tensor:
    """`count` numbers from start to end, fp64."""
    return torch.linspace(start, end, count, dtype=torch.float64)


def base_level(schedule: Schedule, t: Sequence[float]) -> Level:
    """Level of the curve itself, without noise factor, on the host."""
    return on_host(schedule, times(t), 1.0)


def on_host(schedule: Schedule, t: Tensor, factor: float | None) -> Level:
    level = schedule.level(t, factor)
    return Level(level.alpha.double().cpu(), level.sigma.double().cpu())


def between(start: float, middle: Tensor, end: float) -> Tensor:
    """Times with exact ends, whatever an inverse curve made of them."""
    return torch.cat([times([start]), middle.double().cpu(), times([end])])


@GRIDS.register("time")
def uniform_in_time(schedule: Schedule, steps: int, final: float) -> Tensor:
    return even(1, final, steps + 1)


@GRIDS.register("sigma")
def uniform_in_sigma(schedule: Schedule, steps: int, final: float) -> Tensor:
    start, end = base_level(schedule, [1, final]).sigma.tolist()
    return between(1, schedule.time(even(start, end, steps + 1)[1:-1]), final)


@GRIDS.register("log_snr")
def uniform_in_log_snr(schedule: Schedule, steps: int, final: float) -> Tensor:
    """Even in log(alpha / sigma), as solvers of the diffusion ODE like it (Lu et al. 2022)."""
    start, end = base_level(schedule, [1, final]).half_log_snr.clamp(min=LOWEST).tolist()
    sigma = torch.sigmoid(-2 * even(start, end, steps + 1)[1:-1]).sqrt()
    return between(1, schedule.time(sigma), final)


@GRIDS.register("respaced")
def respaced(schedule: Schedule, steps: int, final: float) -> Tensor:
    """M of the model's own T steps, its first and last among them, and then clean data (Nichol & Dhariwal 2021)."""
    last = 1 / schedule.steps if schedule.steps else final
    return torch.cat([even(1, last, steps) if steps > 1 else times([1]), times([0])])


def make_grid(
    schedule: Schedule,
    steps: int,
    final_time: float | None = None,
    told: tuple[float, float] | None = None,
    spacing: str = "time",
    early_stop: int = 0,
    factor: float | None = None,
) -> Grid:
    """M = `steps` steps, of which the last `early_stop` are left out, on a sample whose noise is `factor` times the
    curve's.  `told` gives the noise levels *sigma* of the curve between which the network's times run instead of the
    true ones, as in CeDi's 1 to 0.99 (DINOISER section 4.2 and its footnote 5)."""
    final = FINAL_TIME if final_time is None else final_time
    if final_time is not None and spacing == "respaced" and schedule.steps:
        raise UserError(
            "--final-time has no meaning on the grid respaced, which ends at the model's own last step; drop it, pass "
            "--grid time, or stop earlier with --early-stop"
        )
    check(steps, final, told)
    kept = steps - early_stop + 1
    where = schedule.snap(GRIDS[spacing](schedule, steps, final)).cpu()[:kept]
    if (where.diff() >= 0).any():
        raise UserError(
            f"{steps} steps are more than the model's {schedule.steps} have room for on the grid {spacing}; "
            "pass a smaller --iter-decode-max-iter, or --grid time"
        )
    telling = where if told is None else schedule.snap(even(*told_times(schedule, told), steps + 1)).cpu()[:kept]
    return Grid(where, telling, on_host(schedule, where, factor), on_host(schedule, telling, factor))


def told_times(schedule: Schedule, told: tuple[float, float]) -> tuple[float, float]:
    start, end = schedule.time(times(told)).tolist()
    return start, end


def check(steps: int, final_time: float, told: tuple[float, float] | None) -> None:
    """Refuse grids without steps, or outside of time."""
    if steps < 1:
        raise UserError(f"{steps} decoding steps were asked for; --iter-decode-max-iter takes 1 or more")
    if not 0 < final_time < 1:
        raise UserError(f"the final time {final_time} is outside (0, 1); --final-time 0.001 is usual")
    if told is not None and not 0 < told[1] <= told[0] <= 1:
        raise UserError(
            f"the network cannot be told noise from {told[0]} down to {told[1]}; --told-start and --told-end are noise "
            "levels sigma with 0 < end <= start <= 1, for example 1 and 0.99"
        )
