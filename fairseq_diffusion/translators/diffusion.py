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
from fairseq_diffusion.process.prediction import Prediction, x_0
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TimeSampler, chance
from fairseq_diffusion.states.base import State
from fairseq_diffusion.translators.base import Losses, Source, Translator
from fairseq_diffusion.translators.diffusion_decoding import DiffusionDecoder
from fairseq_diffusion.translators.diffusion_likelihood import chain_likelihood, check_chain
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.diffusion_training import TrainingStep
from fairseq_diffusion.translators.distillation import DistillationTargets

SELF_CONDITIONING = ("none", "random", "both")
# what of x_0-hat the next estimate is conditioned on
CONDITIONS: dict[str, Callable[[State, Tensor], Tensor]] = {
    "estimate": lambda state, c: c,
    "expected": lambda state, c: state.expected(c),
    "best": lambda state, c: state.clamp(c),
}
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
        self_conditioning_on: a name in CONDITIONS.
        self_conditioning_gap: how much later, so noisier, the time of the first pass is.
        word_time_spread: width of the interval around a sentence's time that its words have times of their own from.
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
        self_conditioning_on: str = "estimate",
        self_conditioning_gap: float = 0.0,
        word_time_spread: float = 0.0,
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
        self.self_conditioning_on, self.self_conditioning_gap = self_conditioning_on, self_conditioning_gap
        self.label_smoothing, self.source_drop, self.unroll = label_smoothing, source_drop, unroll
        self.word_time_spread = word_time_spread
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
        """Let the schedule adapt to the state's table and to losses when it is due, unless only lengths are learnt."""
        if update % self.adapt_every == 0 and update != self._adapted_at and not self.length_only:
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
        own, (target, mask) = mask, self.filled(encoded, target, mask, noise.fold(keys, Stream.BLANKS))
        due = self.state.free(mask)
        terms, means = self.length_loss(encoded, own, due)
        objective = self.targets.objective if self.targets else self.objective
        if not self.length_only:
            second_pass = self._second_pass(update if self.training else VALIDATION)
            step = TrainingStep(self, encoded, target, mask, keys, second_pass)
            if self.targets:
                with torch.no_grad():
                    of_teacher = self.targets.teacher.encode(source, source_mask, dropped)
                outcome = step.distilled(self.targets, of_teacher)
            else:
                outcome = step.outcome()
            found = objective.terms(outcome, due)
            if self.training:
                self._observe(outcome, objective.each(found, due) / outcome.weight, own.sum(-1))
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

    def _observe(self, outcome: Outcome, loss: Tensor, length: Tensor) -> None:
        """Show the parts that adapt what the times drawn have cost: losses [B], without weights, of targets of `length`
        [B]."""
        self.time_sampler.observe(outcome.u, loss * self.schedule.training_weight(outcome.u))
        modifier, words = self.schedule.modifier, torch.arange(outcome.tokens.shape[1], device=length.device)
        error = self._error(outcome) if modifier.by_error else None
        modifier.observe(outcome.t[:, 0], loss, error, words < length[:, None])

    def _error(self, outcome: Outcome) -> Tensor | None:
        return self.state.error(outcome.estimates[-1].detach(), outcome.s_0.detach())

    def _errors(self, outcome: Outcome, mask: Tensor) -> dict[str, Any]:
        error = self._error(outcome)
        if error is None:
            return {}
        return error_by_noise(outcome.level, masked_mean(error[..., None], mask)[:, 0])

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
        condition = None if self.self_conditioning == "none" else self._condition(c)
        output = self.denoiser(s_t, condition, t, mask, source.memory)
        if self.prediction is x_0:  # which asks for no level
            return output
        places = torch.arange(mask.shape[1], device=t.device) if self.schedule.modifier.places else None
        return self.prediction(output, s_t, self.schedule.level(t[:, None], positions=places))

    def _condition(self, c: Tensor) -> Tensor:
        """What the denoiser reads of a self-condition [N, L, d]; where that is 0, so is this."""
        if self.self_conditioning_on == "estimate":
            return c
        with torch.no_grad():
            return CONDITIONS[self.self_conditioning_on](self.state, c).where((c != 0).any(-1, keepdim=True), 0.0)

    def likelihood(
        self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, samples: int, steps: int | None = None
    ) -> Likelihood:
        return chain_likelihood(self, source, target, mask, keys, samples, steps)

    def check_likelihood(self, samples: int, steps: int | None = None) -> None:
        check_chain(self, samples, steps)

    def decoder_for(self, options: DiffusionOptions) -> DiffusionDecoder:
        return DiffusionDecoder(self, options)
