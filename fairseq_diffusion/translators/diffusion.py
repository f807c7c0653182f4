"""The diffusion translator: corrupt the target and train a denoiser; or denoise step by step.  torch only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import torch
from torch import Tensor, nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.attention import Memory
from fairseq_diffusion.network.canvas import FilledCanvas
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import masked_mean
from fairseq_diffusion.objective.likelihood import Likelihood
from fairseq_diffusion.objective.reduction import error_by_noise
from fairseq_diffusion.objective.terms import Objective, Outcome
from fairseq_diffusion.process.prediction import Prediction
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TimeSampler, chance
from fairseq_diffusion.states.base import State
from fairseq_diffusion.translators.base import Losses, Source, Translator
from fairseq_diffusion.translators.diffusion_decoding import DiffusionDecoder
from fairseq_diffusion.translators.diffusion_likelihood import chain_likelihood, check_chain
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.distillation import DistillationTargets

SELF_CONDITIONING = ("none", "random", "both")
LENGTH_TRAINING = ("joint", "off", "only")
VALIDATION = -1  # stands for the update number in the random keys of validation


class DiffusionTranslator(Translator):
    """Encoder, denoiser, state, schedule and loss terms, whatever the paper.

    Args:
        encoder, denoiser, state, schedule, length: the parts that have weights or learn.
        prediction: what the denoiser's output means.
        objective: the loss terms and their weights.
        time_sampler: how training times are drawn.
        self_conditioning: "none"; "random", behind a first pass without gradient in a share of the updates; or
            "both" passes trained.
        self_conditioning_probability: that share.
        label_smoothing: of the terms that predict words.
        source_drop: probability that a sentence trains without its source, for guidance.
        length_loss: weight of the length predictor's loss.
        length_training: "joint", "off", or "only" (no other loss is computed).
        adapt_every: updates after which the schedule adapts again.
        unroll: passes of a training step, each behind the first on words drawn from the one before.
        seed: of self-conditioning, which is drawn once an update, alike on all ranks.
        special_ids: symbols that are no words, left out of translations.
        filled_canvas: room for targets, if it may be larger than they are.
    """

    name = "diffusion"
    Options = DiffusionOptions
    special_ids: Tensor

    def __init__(
        self,
        encoder: Encoder,
        denoiser: Denoiser,
        state: State,
        schedule: Schedule,
        length: LengthHead | None,
        prediction: Prediction,
        objective: Objective,
        time_sampler: TimeSampler,
        self_conditioning: str = "both",
        self_conditioning_probability: float = 0.5,
        label_smoothing: float = 0.0,
        source_drop: float = 0.0,
        length_loss: float = 0.1,
        length_training: str = "joint",
        adapt_every: int = 50,
        unroll: int = 1,
        seed: int = 1,
        special_ids: Sequence[int] = (),
        filled_canvas: FilledCanvas | None = None,
    ):
        super().__init__()
        self.encoder, self.denoiser, self.state = encoder, denoiser, state
        self.schedule, self.length, self.filled_canvas = schedule, length, filled_canvas
        self.prediction, self.objective, self.time_sampler = prediction, objective, time_sampler
        self.reduction = objective
        self.self_conditioning, self.self_conditioning_p = self_conditioning, self_conditioning_probability
        self.label_smoothing, self.source_drop, self.unroll = label_smoothing, source_drop, unroll
        self.length_weight = 0.0 if length_training == "off" else length_loss
        self.length_only, self.adapt_every, self.seed = length_training == "only", adapt_every, seed
        self.null = nn.Parameter(torch.zeros(encoder.hidden)) if source_drop else None
        self.register_buffer("special_ids", torch.tensor(sorted(special_ids)), persistent=False)
        self.targets: DistillationTargets | None = None
        self._adapted_at = -1  # --update-freq announces the same update several times

    # -- the source ---------------------------------------------------------------------------------------------------

    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        states = self.encoder(tokens, mask)
        return Source(mask, states, self._memory(states, mask, dropped))

    def dropped(self, keys: Tensor) -> Tensor | None:
        """Which sentences [B] of a training batch are to do without their source."""
        if not self.training or self.null is None:
            return None
        return noise.uniform(noise.fold(keys, Stream.SOURCE_DROP), 1)[:, 0] < self.source_drop

    def without_source(self, source: Source) -> Source:
        """The batch as the unconditional estimate of guidance sees it: every source, which has a <s>, is dropped."""
        first = source.mask & (torch.arange(source.mask.shape[1], device=source.mask.device) == 0)
        return Source(first, source.states, self._memory(source.states, source.mask, source.mask[:, 0]))

    def null_source(self) -> Tensor:
        """What the denoiser reads in a source's place, [h]."""
        if self.null is None:
            raise UserError("--guidance needs a model trained with --source-drop, for example 0.1")
        return self.null

    def _memory(self, states: Tensor, mask: Tensor, dropped: Tensor | None) -> list[Memory]:
        """Of states [S, T, h]; a dropped sentence has a null vector in its first place, and nothing behind it."""
        if dropped is not None:
            states = torch.where(dropped[:, None, None], self.null_source().to(states.dtype), states)
            first = torch.arange(mask.shape[1], device=mask.device) == 0
            mask = torch.where(dropped[:, None], first, mask)
        return self.denoiser.memory(states, mask)

    # -- training -----------------------------------------------------------------------------------------------------

    def adapt(self, update: int) -> None:
        """Let the schedule adapt to the state's table when it is due."""
        if update % self.adapt_every == 0 and update != self._adapted_at:
            self.schedule.update(self.state.table().detach())
            self._adapted_at = update

    def count_words(self, counts: Tensor) -> None:
        self.schedule.modifier.count_words(counts.index_fill(0, self.special_ids, -1))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Other embeddings: what was adapted to the old ones at this update is to be done again."""
        self._adapted_at = -1
        super()._load_from_state_dict(*args, **kwargs)

    def set_teacher(self, targets: DistillationTargets) -> None:
        """From now on learn a teacher's estimates instead of s_0."""
        self.targets = targets

    def losses(
        self, source: Tensor, source_mask: Tensor, target: Tensor, mask: Tensor, keys: Tensor, update: int
    ) -> Losses:
        dropped = self.dropped(keys)
        encoded = self.encode(source, source_mask, dropped)
        own, (target, mask) = mask, self.filled(encoded, target, mask)
        due = self.state.free(mask)
        terms, means = self.length_loss(encoded, own, due)
        objective = self.targets.objective if self.targets else self.objective
        if not self.length_only:
            second_pass = self._second_pass(update if self.training else VALIDATION)
            if self.targets:
                with torch.no_grad():
                    of_teacher = self.targets.teacher.encode(source, source_mask, dropped)
                outcome = self._distilled(self.targets, encoded, of_teacher, target, mask, keys, second_pass)
            else:
                outcome = self._outcome(encoded, target, mask, keys, second_pass)
            found = objective.terms(outcome, due)
            if self.training:
                self.time_sampler.observe(outcome.u, objective.each(found, due) / outcome.weight)
            terms = {**found, **terms}
            means = {**means, **self._errors(outcome, due)}
        return Losses.of(
            terms,
            {**objective.weights, "length": self.length_weight},
            sample_size=objective.sample_size(due),
            means=means,
            state={name: buffer for name, buffer in self.schedule.modifier.named_buffers() if not buffer.dim()},
        )

    def _second_pass(self, update: int) -> bool:
        """Whether random self-conditioning has a second pass in this update, alike on all ranks; always in
        validation."""
        p = self.self_conditioning_p if self.training else 1.0
        return chance(noise.fold(torch.tensor(self.seed), update), p)

    def _outcome(self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, second_pass: bool) -> Outcome:
        """Corrupt the target [B, L] at random times, and estimate it."""
        s_0 = self.state.encode(target)
        u, weight = self.time_sampler(noise.fold(keys, Stream.TIME))
        t = self.schedule.training_time(u)
        positions = torch.arange(target.shape[1], device=target.device)
        level = self.schedule.level(t[:, None], positions=positions, tokens=target)
        own = noise.fold(keys, Stream.STATE)
        s_t, noised = self.state.corrupt(s_0, level, own, mask), self.state.noised(level, own, mask)
        if self.unroll > 1:
            estimates = self._unrolled(source, s_0, s_t, t, level, mask, noise.fold(keys, Stream.UNROLL))
        else:
            estimates = self._passes(
                lambda c: self.denoise(s_t, t, c, mask, source), s_t, self.self_conditioning, second_pass
            )
        return Outcome(target, s_0, s_t, noised, t[:, None], level, weight, u, estimates, *self._parts())

    def _unrolled(
        self, source: Source, s_0: Tensor, s_t: Tensor, t: Tensor, level: Any, mask: Tensor, keys: Tensor
    ) -> list[Tensor]:
        """Estimates of s_t, and then of words drawn from the estimate before, without a gradient through them (Savinov
        et al. 2022); where words are hidden, the drawn ones are hidden again at the same level."""
        state, free, estimates = self.state, self.state.free(mask), list[Tensor]()
        for k in range(self.unroll):
            if k:
                drawn = state.sample(estimates[-1].detach(), noise.fold(keys, k, 0), free)
                s_t = torch.where(free, drawn, s_0)
                s_t = state.corrupt(s_t, level, noise.fold(keys, k, 1), mask) if state.hides else s_t
            estimates.append(self.denoise(s_t, t, state.blank(s_t), mask, source))
        return estimates

    def _distilled(
        self,
        targets: DistillationTargets,
        source: Source,
        of_teacher: Source,
        target: Tensor,
        mask: Tensor,
        keys: Tensor,
        second_pass: bool,
    ) -> Outcome:
        """The same with the teacher's estimate for s_0, at the times and with the noise of the student's decoding;
        `of_teacher` is the source as the teacher encodes it."""
        s_0 = self.state.encode(target)
        u, weight = self.time_sampler(noise.fold(keys, Stream.TIME))
        pair = targets.halving.draw(u)
        s_t = self.state.corrupt(s_0, pair.level, noise.fold(keys, Stream.STATE), mask)
        conditioning = "none" if targets.halving.steps == 1 else self.self_conditioning
        with torch.no_grad():
            teach = lambda s, t, c: targets.teacher.denoise(s, t, c, mask, of_teacher)  # noqa: E731
            wanted = pair.target(teach, s_t, conditioning != "none")
        estimates = self._passes(
            lambda c: self.denoise(s_t, pair.t, pair.condition(c), mask, source), s_t, conditioning, second_pass
        )
        seen = target, wanted, s_t, mask
        return Outcome(*seen, pair.t[:, None], pair.level, weight, u, estimates, *self._parts())

    def _parts(self) -> tuple[State, Schedule, float]:
        return self.state, self.schedule, self.label_smoothing

    def _errors(self, outcome: Outcome, mask: Tensor) -> dict[str, Any]:
        error = self.state.error(outcome.estimates[-1].detach(), outcome.s_0.detach())
        if error is None:
            return {}
        return error_by_noise(outcome.level, masked_mean(error[..., None], mask)[:, 0])

    def _passes(
        self, denoise: Callable[[Tensor], Tensor], s_t: Tensor, self_conditioning: str, second_pass: bool
    ) -> list[Tensor]:
        """The estimates that have a loss: one, one behind a first pass without gradient, or both."""
        blank = self.state.blank(s_t)
        if self_conditioning == "both":
            first = denoise(blank)
            return [first, denoise(first.detach())]
        if self_conditioning == "random" and second_pass:
            with torch.no_grad():
                first = denoise(blank)
            torch.clear_autocast_cache()  # older torch would reuse weights cast in there, which have no gradient
            return [denoise(first)]
        return [denoise(blank)]

    # -- the denoiser, in training and decoding -----------------------------------------------------------------------

    def denoise(self, s_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, source: Source) -> Tensor:
        """The clean estimate.

        Args:
            s_t: corrupted targets [S K, L, ...] of K candidates for each of S sources.
            t: the times [S K] that the network is conditioned on.
            c: the self-condition [S K, L, d]: an earlier estimate, or zeros.
            mask: [S K, L], true at real positions.
            source: the S encoded sources.
        """
        condition = None if self.self_conditioning == "none" else c
        output = self.denoiser(s_t, condition, t, mask, source.memory)
        return self.prediction(output, s_t, self.schedule.level(t[:, None]))

    def likelihood(
        self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, samples: int, steps: int | None = None
    ) -> Likelihood:
        return chain_likelihood(self, source, target, mask, keys, samples, steps)

    def check_likelihood(self, samples: int, steps: int | None = None) -> None:
        check_chain(self, samples, steps)

    def decoder_for(self, options: DiffusionOptions) -> DiffusionDecoder:
        return DiffusionDecoder(self, options)
