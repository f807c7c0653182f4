"""A training step of a diffusion translator: corrupt the target at random times, and estimate it.  torch only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, cast

import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.joint import each
from fairseq_diffusion.objective.terms import Outcome
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.states.base import State
from fairseq_diffusion.translators.batch import Source
from fairseq_diffusion.translators.distillation import DistillationTargets

if TYPE_CHECKING:
    from fairseq_diffusion.translators.chain import Chain


@dataclass(frozen=True)
class TrainingStep:
    """A batch of targets, and whether random self-conditioning has a second pass."""

    translator: Chain
    source: Source
    target: Tensor  # [B, L]
    mask: Tensor  # [B, L]
    keys: Tensor  # [B]
    second_pass: bool

    def outcome(self) -> Outcome:
        model, keys = self.translator, noise.fold(self.keys, Stream.STATE)
        s_0 = model.state.draw(self.target, self.keys)
        u, weight = model.time_sampler(noise.fold(self.keys, Stream.TIME))
        weight = weight * model.schedule.training_weight(u)
        t = model.schedule.training_time(u)
        level = self._level(t)
        s_t, noised = model.state.corrupt(s_0, level, keys, self.mask), model.state.noised(level, keys, self.mask)
        if model.unroll > 1:
            estimates = self._unrolled(s_0, s_t, t, level)
        else:
            later = s_t, t
            if model.self_conditioning_gap:
                t_1 = model.schedule.curve.snap((t + model.self_conditioning_gap).clamp(max=1))
                later = model.state.corrupt(s_0, self._level(t_1), keys, self.mask), t_1
            estimates = self._passes(
                lambda c: self._denoise(s_t, t, c), s_t, model.self_conditioning, lambda c: self._denoise(*later, c)
            )
        return self._result(s_0, s_0, s_t, noised, t, level, weight, u, estimates)

    def distilled(self, targets: DistillationTargets, of_teacher: Source) -> Outcome:
        """The same with the teacher's estimate for s_0, at the times and with the noise of the student's decoding;
        `of_teacher` is the source as the teacher encodes it."""
        model = self.translator
        s_0 = model.state.draw(self.target, self.keys)
        u, weight = model.time_sampler(noise.fold(self.keys, Stream.TIME))
        pair = targets.halving.draw(u)
        s_t = model.state.corrupt(s_0, pair.level, noise.fold(self.keys, Stream.STATE), self.mask)
        conditioning = "none" if targets.halving.steps == 1 else model.self_conditioning
        with torch.no_grad():
            ask, clean = targets.teacher.denoise, model.state.clean
            teach = lambda s, t, c: clean(ask(s, t, c, self.mask, of_teacher))  # noqa: E731
            wanted = pair.target(teach, s_t, conditioning != "none")
        student = lambda c: self._denoise(s_t, pair.t, pair.condition(c))  # noqa: E731
        estimates = self._passes(student, s_t, conditioning, student)
        return self._result(s_0, wanted, s_t, self.mask, pair.t, pair.level, weight, u, estimates)

    def _level(self, t: Tensor) -> Level:
        """Of each word, at times t [B] of the sentences, or around them."""
        schedule, spread = self.translator.schedule, self.translator.word_time_spread
        positions, t = torch.arange(self.target.shape[1], device=self.target.device), t[:, None]
        if spread:
            u = noise.uniform(noise.fold(self.keys, Stream.WORD_TIMES), len(positions))
            t = schedule.curve.snap((t + spread * (u - 0.5)).clamp(schedule.time_min, 1))
        return schedule.level(t, positions=positions, tokens=self.target)

    def _denoise(self, s_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self.translator.denoise(s_t, t, c, self.mask, self.source)

    def _passes(
        self,
        denoise: Callable[[Tensor], Tensor],
        s_t: Tensor,
        self_conditioning: str,
        earlier: Callable[[Tensor], Tensor],
    ) -> list[Tensor]:
        """The estimates that have a loss: one, one behind an `earlier` one without gradient, or both."""
        blank, clean = self.translator.state.blank(s_t), self.translator.state.clean
        if self_conditioning == "both":
            first = earlier(blank)
            with torch.no_grad():
                c = clean(each(Tensor.detach, first))
            return [first, denoise(c)]
        if self_conditioning == "random" and self.second_pass:
            with torch.no_grad():
                c = clean(earlier(blank))
            torch.clear_autocast_cache()  # older torch would reuse weights cast in there, which have no gradient
            return [denoise(c)]
        return [denoise(blank)]

    def _unrolled(self, s_0: Tensor, s_t: Tensor, t: Tensor, level: Level) -> list[Tensor]:
        """Estimates of s_t, and then of words drawn from the estimate before, without a gradient through them (Savinov
        et al. 2022); where words are hidden, the drawn ones are hidden again at the same level."""
        state, keys = cast(State, self.translator.state), noise.fold(self.keys, Stream.UNROLL)
        free, estimates = state.free(self.mask), list[Tensor]()
        for k in range(self.translator.unroll):
            if k:
                drawn = state.sample(estimates[-1].detach(), noise.fold(keys, k, 0), free)
                s_t = torch.where(free, drawn, s_0)
                s_t = state.corrupt(s_t, level, noise.fold(keys, k, 1), self.mask) if state.hides else s_t
            estimates.append(self._denoise(s_t, t, state.blank(s_t)))
        return estimates

    def _result(
        self,
        drawn: Tensor,
        s_0: Tensor,
        s_t: Tensor,
        noised: Tensor,
        t: Tensor,
        level: Level,
        weight: Tensor,
        u: Tensor,
        estimates: list[Tensor],
    ) -> Outcome:
        model = self.translator
        parts = level, weight, u, estimates, cast(State, model.state), model.schedule, model.label_smoothing
        return Outcome(self.target, drawn, s_0, s_t, noised, t[:, None], *parts)
