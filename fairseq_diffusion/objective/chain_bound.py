"""An upper bound on -log p(y | x, length) of given translations: that of a chain of T noise levels.  torch only.

With levels t_1 < ... < t_T = 1, s the level before t, and q the corruption,

    -log p(y | x) <= sum over t  E_q KL(q(s_s | s_t, y) || p(s_s | s_t, x))  +  KL(q(s_T | y) || prior)

where the term of t_1 is E_q -log p(y | s_1, x).  It holds for any estimate of the clean target that the network makes
of s_t, whatever its loss was; so an estimate without self-condition serves.  The sum over t is estimated from draws of
t and s_t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, NamedTuple, cast

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.objective.likelihood import mean_and_error, stratified_choice
from fairseq_diffusion.objective.token_bound import Rows, divergence
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.states.base import State

STEPS = 1000  # T in continuous time, unless another number is asked for
POSITIONS = {"cpu": 2048, "cuda": 32768}  # that the network sees at once

# s_t [B K, L, ...] for K draws of each of B targets, and times [B K] -> clean estimates [B K, L, d]
Denoise = Callable[[Tensor, Tensor], Tensor]


class Drawn(NamedTuple):
    """N corrupted targets with the network's estimates."""

    step: Tensor  # [N], from 0 to T - 1
    target: Tensor  # [N, L]
    mask: Tensor  # [N, L]
    s_t: Tensor  # [N, L, ...]
    estimate: Tensor  # [N, L, d]


class Part(NamedTuple):
    """A sum over steps that is estimated from draws."""

    share: Tensor  # [T] in fp64, how probable each step is to be drawn; 0 for those of another part
    cost: Callable[[Drawn], Tensor]  # of one step, [N] in fp64


def chain_times(schedule: Schedule, steps: int | None) -> Tensor:
    """t_1 < ... < t_T = 1, [T] in fp64, from the smallest time that was trained on: those of the schedule's table, or
    evenly spaced (from 1 / T, where any time was trained on)."""
    first = float(schedule.training_time(torch.zeros((), dtype=torch.float64)))
    if not schedule.steps:
        count = STEPS if steps is None else steps
        if count < 1:
            raise UserError(f"a chain of {count} steps was asked for; pass 1 or more, or nothing for {STEPS}")
        return torch.linspace(1, first or 1 / count, count, dtype=torch.float64).flip(0)
    if steps is not None and steps != schedule.steps:
        raise UserError(
            f"{steps} steps were asked for, but this model's noise schedule has {schedule.steps} of its own "
            "(--diffusion-steps); drop --steps"
        )
    return torch.arange(round(first * schedule.steps), schedule.steps + 1, dtype=torch.float64) / schedule.steps


class ChainBound(ABC):
    """The terms of a state's chain."""

    def __init__(self, state: State, schedule: Schedule, times: Tensor):
        """`times` [T] as `chain_times` makes them."""
        self.state, self.schedule, self.times = state, schedule, times

    @property
    @abstractmethod
    def parts(self) -> list[Part]:
        """The sums that are estimated."""

    @abstractmethod
    def prior(self, target: Tensor, mask: Tensor) -> Tensor:
        """KL(q(s_T | y) || prior), [B] in fp64."""

    def level(self, step: Tensor, target: Tensor) -> Level:
        """Level of s_t at steps [N] from 0 to T - 1, [N, 1] or [N, L]."""
        positions = torch.arange(target.shape[1], device=target.device)
        return self.schedule.level(self.times[step][:, None], positions=positions, tokens=target)


BOUNDS: Registry[type[ChainBound]] = Registry("bound")  # by the family of states


@BOUNDS.register("categorical")
class TokenBound(ChainBound):
    """Words that are hidden or replaced: q(y_s | y_t, y_0) against its mixture over the estimate, exactly (see
    objective/token_bound.py), at the positions that are free.

    The last level is pure noise, a_T = 0, as sampling begins with it; so q(y_T | y_0) is the prior.  (Tables end just
    above 0, where words that can only be hidden would have an infinite divergence from a prior that is all masks.)
    """

    @property
    def parts(self) -> list[Part]:
        return [Part(torch.ones_like(self.times) / len(self.times), self._divergence)]

    def prior(self, target: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros(len(target), dtype=torch.float64, device=target.device)

    def level(self, step: Tensor, target: Tensor) -> Level:
        level, last = super().level(step, target), (step == len(self.times) - 1)[:, None]
        return Level(level.alpha.masked_fill(last, 0.0), level.sigma.masked_fill(last, 1.0))

    def _divergence(self, drawn: Drawn) -> Tensor:
        state, target = cast(Any, self.state), drawn.target
        before = self.level((drawn.step - 1).clamp(min=0), target).alpha.square()
        kept = before.masked_fill((drawn.step == 0)[:, None], 1.0), self.level(drawn.step, target).alpha.square()
        changeable = state.hidden(drawn.s_t) | state.replaces  # else a word that is seen is there for good
        due = state.free(drawn.mask) & changeable
        rows = Rows(*(x.expand(due.shape)[due] for x in (drawn.s_t, target, *kept)))
        # in fp64: one of many steps changes little, and what it costs is a difference of logarithms
        found = divergence(drawn.estimate[due].double(), state.readout().double(), rows, state.kernel)
        return torch.zeros(due.shape, dtype=found.dtype, device=due.device).masked_scatter(due, found).sum(-1)


@BOUNDS.register("gaussian")
class GaussianBound(ChainBound):
    """Vectors x_t = alpha x_0 + sigma eps, whether or not alpha^2 + sigma^2 is 1.

    q(x_s | x_t, x_0) has the variance v sigma_s^2 / sigma_t^2, v = sigma_t^2 - (alpha_t sigma_s / alpha_s)^2, and a
    mean in which x_0 has the weight alpha_s v / sigma_t^2.  With the estimate in place of x_0 and the same variance,

        KL = 1/2 (alpha_s v / sigma_t^2)^2 ||x_0 - x_0-hat||^2 / (v sigma_s^2 / sigma_t^2)
           = 1/2 (SNR(s) - SNR(t)) ||x_0 - x_0-hat||^2,     SNR = alpha^2 / sigma^2

    The first level is the smallest trained on: p(y | x_1) is read from the estimate, as words are in decoding.  The
    prior is pure noise of the last level, N(0, sigma_T^2): KL = 1/2 SNR(T) ||x_0||^2.  All real positions count, <s>
    and </s>, too, since they are corrupted and predicted like words.

    Steps are drawn in proportion to log (1 + SNR(s)) / (1 + SNR(t)), what each would cost if x_0 were Gaussian.
    """

    @property
    def parts(self) -> list[Part]:
        first = torch.zeros_like(self.times)
        first[0] = 1
        cost = -self._snr(self.schedule.level(self.times)).log1p().diff()
        rest = torch.cat([torch.zeros_like(cost[:1]), cost / cost.sum()])
        read = Part(first, self._reading)
        return [read, Part(rest, self._error)] if len(self.times) > 1 else [read]

    def prior(self, target: Tensor, mask: Tensor) -> Tensor:
        last = torch.full_like(target[:, 0], len(self.times) - 1)
        norm = self.state.encode(target).double().square().sum(-1)
        return (self._snr(self.level(last, target)) * norm / 2).masked_fill(~mask, 0.0).sum(-1)

    def _reading(self, drawn: Drawn) -> Tensor:
        """-log p(y | x_1)."""
        return self.state.nll(drawn.estimate, drawn.target, mask=drawn.mask).double().sum(-1)

    def _error(self, drawn: Drawn) -> Tensor:
        """1/2 (SNR(s) - SNR(t)) ||x_0 - x_0-hat||^2."""
        after, before = (self._snr(self.level(step, drawn.target)) for step in (drawn.step, drawn.step - 1))
        error = (self.state.clean(drawn.estimate).double() - self.state.encode(drawn.target)).square().sum(-1)
        return ((before - after) * error / 2).masked_fill(~drawn.mask, 0.0).sum(-1)

    def _snr(self, level: Level) -> Tensor:
        return (level.alpha / level.sigma).square()


def bound_for(state: State, schedule: Schedule, steps: int | None) -> ChainBound:
    """The bound of a state's family in `steps` steps, None for the usual number."""
    if state.family not in BOUNDS:
        raise UserError(
            f"there is no bound on the likelihood for states of the family {state.family}, only for those of: "
            f"{', '.join(BOUNDS)}; enter one in objective.chain_bound.BOUNDS"
        )
    if schedule.modifier.by_words or schedule.modifier.places:
        raise UserError(
            "there is no bound on the likelihood where each word or position has a level of its own "
            "(--schedule-modifier spindle, position)"
        )
    if state.center is not None:
        raise UserError("there is no bound on the likelihood where a learned vector absorbs words (--soft-absorb)")
    times = chain_times(schedule, steps).to(state.readout().device)
    return BOUNDS[state.family](state, schedule, times)


def estimated(
    bound: ChainBound, denoise: Denoise, target: Tensor, mask: Tensor, keys: Tensor, samples: int
) -> tuple[Tensor, Tensor]:
    """The bound [B] in fp64, and its standard error [B].

    Args:
        bound: the chain.
        denoise: the network, which knows the sources.
        target: tokens [B, L], padded on the right.
        mask: [B, L], true at real ones.
        keys: random keys [B]; all noise is a function of them.
        samples: draws of a step and a state for each sum that is estimated.
    """
    values = torch.zeros(len(target), samples, dtype=torch.float64, device=target.device)
    at_once = max(1, POSITIONS.get(target.device.type, POSITIONS["cuda"]) // max(1, target.numel()))
    for number, part in enumerate(bound.parts):
        steps, weights = stratified_choice(part.share, noise.fold(keys, Stream.TIME, number), samples)
        own = noise.fold(noise.fold(keys, Stream.STATE, number)[:, None], torch.arange(samples, device=keys.device))
        for first in range(0, samples, at_once):
            now = slice(first, first + at_once)
            drawn = corrupted(bound, denoise, target, mask, own[:, now], steps[:, now])
            values[:, now] += weights[:, now] * part.cost(drawn).view(len(target), -1)
    mean, error = mean_and_error(values)
    return mean + bound.prior(target, mask), error


def corrupted(bound: ChainBound, denoise: Denoise, target: Tensor, mask: Tensor, keys: Tensor, steps: Tensor) -> Drawn:
    """States of targets [B, L] by keys [B, K] at `steps` [B, K], with their estimates; as B K rows."""
    target, mask = (x.repeat_interleave(keys.shape[1], 0) for x in (target, mask))
    steps = steps.flatten()
    s_0 = bound.state.encode(target)
    s_t = bound.state.corrupt(s_0, bound.level(steps, target), keys.flatten(), mask)
    return Drawn(steps, target, mask, s_t, denoise(s_t, bound.times[steps]))
