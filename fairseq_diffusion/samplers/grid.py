"""The two grids of a sampler: the times of the sample, and those that the network is conditioned on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.level import Level, times
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.registry import Registry

# A spacing puts M + 1 times between a first and a final one; the sampler calls the network at the first M of them.
Spacing = Callable[[Schedule, int, float, float], Tensor]
GRIDS: Registry[Spacing] = Registry("grid")

FINAL_TIME = 1e-3
LOWEST = -4.0  # of log(alpha / sigma) in a grid even in it: pure noise has none


@dataclass(frozen=True)
class Grid:
    """Times and their levels, each [M + 1], from noise to data; fp64, on the host: steps are numbers, not tensors.

    Where positions have levels of their own, levels are [M + 1, P], for the first P of them.
    """

    t: Tensor
    conditioning_t: Tensor
    level: Level
    conditioning_level: Level
    schedule: Schedule | None = None  # for samplers that ask for levels of words

    @property
    def steps(self) -> int:
        return len(self.t) - 1


def even(start: float, end: float, count: int) -> Tensor:
    """`count` numbers from start to end, fp64."""
    return torch.linspace(start, end, count, dtype=torch.float64)


def base_level(schedule: Schedule, t: Sequence[float]) -> Level:
    """Level of the curve itself, without noise factor, on the host."""
    level = schedule.level(times(t), 1.0)
    return Level(level.alpha.cpu(), level.sigma.cpu())


def on_host(schedule: Schedule, t: Tensor, factor: float | None) -> Level:
    if places := schedule.modifier.places:
        level = schedule.level(t[:, None], factor, torch.arange(places, device=t.device))
    else:
        level = schedule.level(t, factor)
    return Level(level.alpha.double().cpu(), level.sigma.double().cpu())


def between(start: float, middle: Tensor, end: float) -> Tensor:
    """Times with exact ends, whatever an inverse curve made of them."""
    return torch.cat([times([start]), middle.double().cpu(), times([end])])


@GRIDS.register("time")
def uniform_in_time(schedule: Schedule, steps: int, first: float, final: float) -> Tensor:
    return even(first, final, steps + 1)


@GRIDS.register("sigma")
def uniform_in_sigma(schedule: Schedule, steps: int, first: float, final: float) -> Tensor:
    start, end = base_level(schedule, [first, final]).sigma.tolist()
    return between(first, schedule.time(even(start, end, steps + 1)[1:-1]), final)


@GRIDS.register("log_snr")
def uniform_in_log_snr(schedule: Schedule, steps: int, first: float, final: float) -> Tensor:
    """Even in log(alpha / sigma), as solvers of the diffusion ODE like it (Lu et al. 2022)."""
    start, end = base_level(schedule, [first, final]).half_log_snr.clamp(min=LOWEST).tolist()
    sigma = torch.sigmoid(-2 * even(start, end, steps + 1)[1:-1]).sqrt()
    return between(first, schedule.time(sigma), final)


@GRIDS.register("cosine")
def cosine(schedule: Schedule, steps: int, first: float, final: float) -> Tensor:
    """sigma^2 = cos(pi i / 2N) between the ends, for words the share that is noise: short steps first, long ones behind
    (Chang et al. 2022)."""
    start, end = base_level(schedule, [first, final]).sigma.square().tolist()
    share = end + (start - end) * torch.cos(math.pi / 2 * even(0, 1, steps + 1)[1:-1])
    return between(first, schedule.time(share.sqrt()), final)


@GRIDS.register("training")
def as_in_training(schedule: Schedule, steps: int, first: float, final: float) -> Tensor:
    """Even in what training draws evenly: where a modifier has it draw more times, there are more steps."""
    fine = even(0, 1, 4097)
    drawn = schedule.modifier.time(fine, schedule.curve)
    ends = times([first, final]).clamp(drawn[0], drawn[-1])
    n = torch.searchsorted(drawn, ends).clamp(min=1)
    start, end = torch.lerp(fine[n - 1], fine[n], (ends - drawn[n - 1]) / (drawn[n] - drawn[n - 1])).tolist()
    return between(first, schedule.modifier.time(even(start, end, steps + 1)[1:-1], schedule.curve), final)


@GRIDS.register("respaced")
def respaced(schedule: Schedule, steps: int, first: float, final: float) -> Tensor:
    """M of the model's own T steps, from the first time to the last of them, and then clean data (Nichol & Dhariwal
    2021)."""
    last = 1 / schedule.steps if schedule.steps else final
    return torch.cat([even(first, last, steps) if steps > 1 else times([first]), times([0])])


def make_grid(
    schedule: Schedule,
    steps: int,
    final_time: float | None = None,
    conditioning: tuple[float, float] | None = None,
    spacing: str = "time",
    early_stop: int = 0,
    factor: float | None = None,
    first_time: float = 1.0,
) -> Grid:
    """The grid of a number of steps.

    Args:
        schedule: the model's.
        steps: M, of which the last `early_stop` are left out.
        final_time: where the steps end (default: FINAL_TIME).
        conditioning: noise levels *sigma* of the curve between which the times that the network is conditioned on run,
            instead of the sample's own, as in CeDi's 1 to 0.99 (DINOISER section 4.2 and its footnote 5).
        spacing: a name in GRIDS.
        early_stop: number of steps to leave out.
        factor: the sample's noise is this many times the curve's (default: as in training).
        first_time: where the steps begin: 1 is noise alone.
    """
    final = FINAL_TIME if final_time is None else final_time
    if final_time is not None and spacing == "respaced" and schedule.steps:
        raise UserError(
            "--final-time has no meaning on the grid respaced, which ends at the model's own last step; drop it, pass "
            "--grid time, or stop earlier with --early-stop"
        )
    check(steps, first_time, final, conditioning)
    kept = steps - early_stop + 1
    t = schedule.snap(GRIDS[spacing](schedule, steps, first_time, final)).cpu()[:kept]
    check_room(t, steps, schedule.steps, spacing, first_time)
    seen = t if conditioning is None else conditioning_times(schedule, steps, conditioning)[:kept]
    return Grid(t, seen, on_host(schedule, t, factor), on_host(schedule, seen, factor), schedule)


def conditioning_times(schedule: Schedule, steps: int, conditioning: tuple[float, float]) -> Tensor:
    """Even between the times at which the curve reaches the two noise levels."""
    start, end = schedule.time(times(conditioning)).tolist()
    return schedule.snap(even(start, end, steps + 1)).cpu()


def check_room(t: Tensor, steps: int, of_the_model: int, spacing: str, first_time: float) -> None:
    """Refuse a grid whose times t do not go down, as there are too many."""
    if (t.diff() >= 0).any():
        room = f"the model's {of_the_model} have room for" if of_the_model else "there is room for"
        other = "--grid time" if first_time == 1 else "a larger --draft"
        raise UserError(
            f"{steps} steps are more than {room} on the grid {spacing}; pass a smaller --iter-decode-max-iter, or "
            f"{other}"
        )


def check(steps: int, first_time: float, final_time: float, conditioning: tuple[float, float] | None) -> None:
    """Refuse grids without steps, or outside of time."""
    if steps < 1:
        raise UserError(f"{steps} decoding steps were asked for; --iter-decode-max-iter takes 1 or more")
    if not 0 < final_time < 1:
        raise UserError(f"the final time {final_time} is outside (0, 1); --final-time 0.001 is usual")
    if not final_time < first_time <= 1:
        raise UserError(
            f"decoding begins at time {first_time} (--draft), which is not between its final time {final_time} and 1; "
            "0.5 is a time to try"
        )
    if conditioning is not None and not 0 < conditioning[1] <= conditioning[0] <= 1:
        raise UserError(
            f"--conditioning-sigma-start is {conditioning[0]} and --conditioning-sigma-end {conditioning[1]}; they are "
            "noise levels with 0 < end <= start <= 1, for example 1 and 0.99"
        )
