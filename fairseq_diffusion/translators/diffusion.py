"""The nine parts put together: training losses on one side, a denoiser to sample from on the other.  torch only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.network.attention import Memory
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import masked_mean
from fairseq_diffusion.objective.objective import Objective
from fairseq_diffusion.objective.terms import Outcome
from fairseq_diffusion.process.level import Level
from fairseq_diffusion.process.prediction import Prediction
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.samplers.halving import Denoise, Halving
from fairseq_diffusion.states.embedding import EmbeddingState
from fairseq_diffusion.translators.source import Source

SELF_CONDITIONING = ("none", "coin", "both")


@dataclass(frozen=True)
class Losses:
    """A batch's unweighted loss shares, [B] a term, with what curves want to see."""

    terms: dict[str, Tensor]
    length_correct: Tensor  # [B]
    sigma: Tensor | None = None  # [B], the noise trained on, as its share of a state of unit variance
    error: Tensor | None = None  # [B], mean squared error of the last estimate


@dataclass(frozen=True)
class Lessons:
    """What a student learns by: its steps, its teacher of twice as many, and what is graded."""

    halving: Halving
    teacher: Denoise
    objective: Objective


class Translator(nn.Module):
    """A Gaussian diffusion translator, whatever the paper."""

    def __init__(
        self,
        encoder: Encoder,
        denoiser: Denoiser,
        state: EmbeddingState,
        schedule: Schedule,
        length: LengthHead,
        prediction: Prediction,
        objective: Objective,
        time_sampler: Callable[[Tensor], Tensor],
        self_conditioning: str,
        label_smoothing: float,
        source_drop: float = 0.0,
    ):
        super().__init__()
        self.encoder, self.denoiser, self.state = encoder, denoiser, state
        self.schedule, self.length = schedule, length
        self.prediction, self.objective, self.time_sampler = prediction, objective, time_sampler
        self.self_conditioning, self.label_smoothing = self_conditioning, label_smoothing
        self.source_drop = source_drop
        self.null = nn.Parameter(torch.zeros(encoder.hidden)) if source_drop else None

    def dropped(self, keys: Tensor) -> Tensor | None:
        """Which sentences [S] of a training batch with noise `keys` [S] are to do without their source."""
        if not self.training or self.null is None:
            return None
        return noise.uniform(noise.fold(keys, 3), 1)[:, 0] < self.source_drop

    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        """Source tokens [S, T], mask true at real ones; the denoiser does not see those that are `dropped` [S]."""
        states = self.encoder(tokens, mask)
        return Source(mask, states, self._memory(states, mask, dropped))

    def nothing(self, source: Source) -> Source:
        """The batch as the unconditional estimate of guidance sees it: every source dropped."""
        everyone = torch.ones_like(source.mask[:, 0])
        return Source(source.mask, source.states, self._memory(source.states, source.mask, everyone))

    def learnt_null(self) -> Tensor:
        """What the denoiser reads in a source's place, [h]."""
        if self.null is None:
            raise UserError("--guidance needs a model trained with --source-drop, for example 0.1")
        return self.null

    def _memory(self, states: Tensor, mask: Tensor, dropped: Tensor | None) -> list[Memory]:
        """Of states [S, T, h]; a dropped sentence has a null vector in its first place, and nothing behind it."""
        if dropped is not None:
            states = torch.where(dropped[:, None, None], self.learnt_null().to(states.dtype), states)
            first = torch.arange(mask.shape[1], device=mask.device) == 0
            mask = torch.where(dropped[:, None], first, mask)
        return self.denoiser.memory(states, mask)

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, source: Source) -> Tensor:
        """x_0-hat [S K, L, D] from x_t and the self-condition c, both [S K, L, D], told the times t [S K]."""
        condition = None if self.self_conditioning == "none" else c
        output = self.denoiser(x_t, condition, t, mask, source.memory)
        return self.prediction(output, x_t, self.schedule.level(t[:, None]))

    def length_losses(self, source: Source, mask: Tensor) -> Losses:
        """Loss of the length predictor alone, for targets of which mask [B, L] is real."""
        logits = self.length(source.states, source.mask)
        true = mask.sum(-1)
        share = self.objective.share(self.length.loss(logits, source.length, true), mask)
        return Losses({"length": share}, logits.argmax(-1) == self.length.class_of(source.length, true))

    def losses(self, source: Source, tokens: Tensor, mask: Tensor, keys: Tensor, recondition: bool) -> Losses:
        """All losses of target tokens [B, L] under the noise of `keys` [B]; `recondition` is how a coin fell."""
        x_0 = self.state.encode(tokens)
        t = self.schedule.training_time(self.time_sampler(noise.fold(keys, 0)))
        level = self.schedule.level(t[:, None])
        x_t = self._corrupted(x_0, level, keys)
        denoise = lambda c: self.denoise(x_t, t, c, mask, source)  # noqa: E731
        estimates = self._passes(denoise, x_t, self.self_conditioning, recondition)
        return self._graded(self.objective, self._outcome(tokens, x_0, estimates), level, source, mask)

    def student_losses(
        self, source: Source, tokens: Tensor, mask: Tensor, keys: Tensor, recondition: bool, lessons: Lessons
    ) -> Losses:
        """The same with the teacher's word for x_0, at the times and with the noise of the student's decoding."""
        x_0 = self.state.encode(tokens)
        pair = lessons.halving.draw(self.time_sampler(noise.fold(keys, 0)))
        x_t = self._corrupted(x_0, pair.level, keys)
        how = "none" if lessons.halving.steps == 1 else self.self_conditioning
        with torch.no_grad():
            target = pair.target(lessons.teacher, x_t, how != "none")
        denoise = lambda c: self.denoise(x_t, pair.t, pair.condition(c), mask, source)  # noqa: E731
        estimates = self._passes(denoise, x_t, how, recondition)
        return self._graded(lessons.objective, self._outcome(tokens, target, estimates), pair.level, source, mask)

    def _corrupted(self, x_0: Tensor, level: Level, keys: Tensor) -> Tensor:
        return self.state.corrupt(x_0, level, noise.normal(noise.fold(keys, 1), *x_0.shape[1:]))

    def _outcome(self, tokens: Tensor, x_0: Tensor, estimates: list[Tensor]) -> Outcome:
        last = self.schedule.level(torch.ones(1, 1, device=tokens.device))
        return Outcome(tokens, x_0, estimates, last, self.state, self.label_smoothing)

    def _graded(self, objective: Objective, outcome: Outcome, level: Level, source: Source, mask: Tensor) -> Losses:
        length = self.length_losses(source, mask)
        error = masked_mean((outcome.estimates[-1] - outcome.x_0).detach().square(), mask).mean(-1)
        share = level.sigma / torch.hypot(level.alpha, level.sigma)
        terms = {**objective.terms(outcome, mask), **length.terms}
        return Losses(terms, length.length_correct, share[:, 0], error)

    def _passes(
        self, denoise: Callable[[Tensor], Tensor], x_t: Tensor, self_conditioning: str, recondition: bool
    ) -> list[Tensor]:
        """The graded estimates: one, one behind an ungraded first (a coin's heads), or both."""
        nothing = torch.zeros_like(x_t)
        if self_conditioning == "both":
            first = denoise(nothing)
            return [first, denoise(first.detach())]
        if self_conditioning == "coin" and recondition:
            with torch.no_grad():
                first = denoise(nothing)
            torch.clear_autocast_cache()  # older torch would reuse weights cast in there, which have no gradient
            return [denoise(first)]
        return [denoise(nothing)]
