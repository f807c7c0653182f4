"""Progressive distillation: a student takes in one step what its teacher takes in two (Salimans & Ho 2022, section 3).

The teacher goes t -> t' -> t'' by DDIM, with estimates X at t and X' at t' of the clean data:

    x' = a' X + (s'/s) (x_t - a X),   x'' = a'' X' + (s''/s') (x' - a' X')

One DDIM step from x_t lands on x'' if the student's estimate is (Huang et al. 2022)

    X* = (x'' - (s''/s) x_t) / (a'' - (s''/s) a)

in which x_t cancels: X* = X + w (X' - X), w = (r'' - r') / (r'' - r), r = a/s.  A noise factor divides every r alike,
so w does not know of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.gaussian import GaussianSampler
from fairseq_diffusion.samplers.grid import FINAL_TIME, even, make_grid

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # x_t [B, L, D], t [B], self-condition [B, L, D] -> x_0-hat


@dataclass(frozen=True)
class Pair:
    """Two of the teacher's steps, t -> t' -> t'', one such pair a sentence."""

    t: Tensor  # [B]
    middle: Tensor  # [B], t'
    level: Level  # [B, 1], at t
    keep: Tensor  # [B, 1, 1]; x' = keep x_t + x_0 X
    x_0: Tensor  # [B, 1, 1]
    w: Tensor  # [B, 1, 1]
    later: Tensor  # [B, 1, 1], 0 in the first step, else 1

    def target(self, denoise: Denoise, x_t: Tensor, conditioned: bool) -> Tensor:
        """X* for x_t, both [B, L, D]; as in decoding, each of the teacher's estimates conditions its next one."""
        keep, x_0, w = (number.to(x_t) for number in (self.keep, self.x_0, self.w))
        earlier = torch.zeros_like(x_t)
        if conditioned:
            earlier = self.condition(denoise(x_t, self.t, earlier))
        first = denoise(x_t, self.t, earlier)
        second = denoise(keep * x_t + x_0 * first, self.middle, first)
        return torch.lerp(first, second, w)

    def condition(self, c: Tensor) -> Tensor:
        """The self-condition [B, L, D]; in its first step, decoding has no estimate yet to condition on."""
        return self.later.to(c) * c


class Halving:
    """The N steps of a student, even in time, and the 2N of its teacher."""

    def __init__(self, schedule: Schedule, steps: int, factor: float | None = None, device: torch.device | None = None):
        """`factor` is the noise factor to decode with."""
        check(schedule, steps)
        self.steps = steps
        grid = make_grid(schedule, 2 * steps, factor=factor)
        taken = torch.tensor(GaussianSampler().steps(grid), dtype=torch.float64)[::2]
        r = grid.level.alpha / grid.level.sigma
        r[-1] = math.inf  # decoding ends in the last estimate, as if the last step led to clean data
        w = 1 - (r[1::2] - r[:-1:2]) / (r[2::2] - r[:-1:2])
        later = torch.arange(steps) > 0
        level = grid.level[:-1:2]
        columns = [*grid.t[:-1].view(steps, 2).T, level.alpha, level.sigma, taken[:, 0], taken[:, 1], w, later]
        self.table = torch.stack([column.double() for column in columns], -1).to(device)

    def draw(self, u: Tensor) -> Pair:
        """A pair for each uniform u [B] in (0, 1)."""
        t, middle, alpha, sigma, *numbers = self.table[(u * self.steps).long()].unbind(-1)
        return Pair(t, middle, Level(alpha[:, None], sigma[:, None]), *(x[:, None, None] for x in numbers))


def check(schedule: Schedule, steps: int) -> None:
    """Refuse a student without steps, and one whose teacher has more of them than the model has times."""
    if steps < 1:
        raise UserError(f"--student-steps is {steps}; a student takes 1 step or more, half as many as its teacher")
    if (schedule.snap(even(1, FINAL_TIME, 2 * steps + 1)).diff() >= 0).any():
        raise UserError(
            f"--student-steps {steps} needs a teacher of {2 * steps} steps, for which the model's {schedule.steps} "
            "diffusion steps have no room; pass fewer"
        )
