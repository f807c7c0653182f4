"""The diffusion translator: corrupt the target and train a denoiser; or denoise step by step.  torch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.attention import Memory
from fairseq_diffusion.network.canvas import FilledCanvas
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.joint import each, of_words
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.network.transformer import masked_mean
from fairseq_diffusion.objective.likelihood import Likelihood
from fairseq_diffusion.objective.reduction import error_by_noise
from fairseq_diffusion.objective.terms import Objective, Outcome
from fairseq_diffusion.process.prediction import Prediction
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TimeSampler
from fairseq_diffusion.states.base import State
from fairseq_diffusion.translators.base import Translator
from fairseq_diffusion.translators.batch import Losses, Source
from fairseq_diffusion.translators.chain import VALIDATION, Chain
from fairseq_diffusion.translators.diffusion_decoding import DiffusionDecoder
from fairseq_diffusion.translators.diffusion_likelihood import chain_likelihood, check_chain
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions
from fairseq_diffusion.translators.diffusion_training import TrainingStep
from fairseq_diffusion.translators.distillation import DistillationTargets
from fairseq_diffusion.translators.latents import Latents

SELF_CONDITIONING = ("none", "random", "both")
LENGTH_TRAINING = ("joint", "off", "only")


class DiffusionTranslator(Chain, Translator):
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
        latents: of targets, if there are any, for the denoiser to read beside the source.
    """

    name = "diffusion"
    Options = DiffusionOptions
    state: State
    special_ids: Tensor
    targets: DistillationTargets | None = None  # of a student

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
        latents: Latents | None = None,
    ):
        super().__init__()
        self.encoder, self.denoiser, self.state = encoder, denoiser, state
        self.schedule, self.length, self.filled_canvas = schedule, length, filled_canvas
        self.prediction, self.time_sampler, self.latents = prediction, time_sampler, latents
        self.objective = self.reduction = objective
        self.self_conditioning, self.self_conditioning_p = self_conditioning, self_conditioning_probability
        self.self_conditioning_on, self.self_conditioning_gap = self_conditioning_on, self_conditioning_gap
        self.label_smoothing, self.word_time_spread, self.unroll = label_smoothing, word_time_spread, unroll
        self.length_weight = 0.0 if length_training == "off" else length_loss
        self.length_only, self.adapt_every, self.seed = length_training == "only", adapt_every, seed
        self.source_drop = source_drop
        self.null = nn.Parameter(torch.zeros(encoder.hidden)) if source_drop else None
        self.register_buffer("special_ids", torch.tensor(sorted(special_ids)), persistent=False)
        self._adapted_at = -1  # --update-freq announces the same update several times

    # -- the source ---------------------------------------------------------------------------------------------------

    def encode(self, tokens: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        return self.read(self.encoder(tokens, mask), mask, dropped)

    @property
    def has_latents(self) -> bool:
        return self.latents is not None or self.state.paired

    def remember(self, states: Tensor, mask: Tensor) -> list[Memory]:
        return self.denoiser.memory(states, mask)

    # -- training -----------------------------------------------------------------------------------------------------

    def adapt(self, update: int) -> None:
        """Let the schedule adapt to the state's table and to losses when it is due, unless only lengths are learnt."""
        if update % self.adapt_every == 0 and update != self._adapted_at and not self.length_only:
            self.schedule.update(self.state.table().detach())
            self._adapted_at = update

    def count_words(self, counts: Tensor) -> None:
        super().count_words(counts)
        self.schedule.modifier.count_words(counts)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Other embeddings: what was adapted to the old ones at this update is to be done again."""
        self._adapted_at = -1
        super()._load_from_state_dict(*args, **kwargs)

    def set_teacher(self, targets: DistillationTargets) -> None:
        """From now on learn a teacher's estimates instead of s_0."""
        if self.has_latents:
            raise UserError(
                "a model with latents (--latents) cannot be a student of progressive distillation, which is made for "
                "one chain; distil one without"
            )
        self.targets = targets

    def losses(
        self,
        source: Tensor,
        source_mask: Tensor,
        target: Tensor,
        mask: Tensor,
        keys: Tensor,
        update: int,
        durations: Tensor | None = None,
    ) -> Losses:
        self.state.begin(update)
        dropped = self.dropped(keys)
        encoded = self.encode(source, source_mask, dropped)
        raw, own, (target, mask) = target, mask, self.filled(encoded, target, mask, noise.fold(keys, Stream.BLANKS))
        due = self.state.free(mask)
        terms, means = self.length_loss(encoded, own, due, durations)
        weights = {"length": self.length_weight}
        objective = self.targets.objective if self.targets else self.objective
        if not self.length_only:
            second_pass = self.second_pass(update if self.training else VALIDATION)
            latent = self.latent_step(encoded, raw, own, keys, update)
            step = TrainingStep(self, latent.source, target, mask, keys, second_pass)
            outcome = self._outcome(step, source, source_mask, dropped)
            found = objective.terms(outcome, due)
            if self.training:
                self._observe(outcome, objective.each(found, due) / outcome.weight, own.sum(-1))
            cost = lambda source: self._cost(replace(step, source=source), due)  # noqa: E731
            means |= self._errors(outcome, due) | self.latent_gains(encoded, latent, keys, cost, update, due.sum(-1))
            contrast, weight = self._contrast(outcome, keys, due)
            shares = {name: self.reduction.share(loss, due) for name, loss in latent.losses.items()}
            terms = found | shares | contrast | terms
            weights |= objective.weights | latent.weights | weight
        return Losses.of(
            terms,
            weights,
            sample_size=objective.sample_size(due),
            means=means,
            state={name: buffer for name, buffer in self.schedule.modifier.named_buffers() if not buffer.dim()},
        )

    def _outcome(self, step: TrainingStep, *source: Any) -> Outcome:
        """Of a batch; a teacher encodes the source for itself."""
        if not self.targets:
            return step.outcome()
        with torch.no_grad():
            of_teacher = self.targets.teacher.encode(*source)
        return step.distilled(self.targets, of_teacher)

    def _observe(self, outcome: Outcome, loss: Tensor, length: Tensor) -> None:
        """Show the parts that adapt what the times drawn have cost: losses [B], without weights, of targets of `length`
        [B]."""
        self.time_sampler.observe(outcome.u, loss * self.schedule.training_weight(outcome.u))
        modifier, words = self.schedule.modifier, torch.arange(outcome.tokens.shape[1], device=length.device)
        error = self._error(outcome) if modifier.by_error else None
        modifier.observe(outcome.t[:, 0], loss, error, words < length[:, None])

    def _cost(self, step: TrainingStep, due: Tensor) -> Tensor:
        """The loss of a word, as a mean over those of each sentence, [B]."""
        return self.objective.each(self.objective.terms(step.outcome(), due), due)

    def _contrast(self, outcome: Outcome, keys: Tensor, due: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Of what words are read from, where they were corrupted: those that are seen are told apart anyway."""
        states = [of_words(estimate) for estimate in outcome.estimates]
        return self.contrast_loss(states, outcome.tokens, due & outcome.noised, keys, due)

    def _error(self, outcome: Outcome) -> Tensor | None:
        return self.state.error(*(each(Tensor.detach, x) for x in (outcome.estimates[-1], outcome.s_0)))

    def _errors(self, outcome: Outcome, mask: Tensor) -> dict[str, Any]:
        error = self._error(outcome)
        if error is None:
            return {}
        return error_by_noise(outcome.level, masked_mean(error[..., None], mask)[:, 0])

    # -- decoding -----------------------------------------------------------------------------------------------------

    def likelihood(
        self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, samples: int, steps: int | None = None
    ) -> Likelihood:
        return chain_likelihood(self, source, target, mask, keys, samples, steps)

    def check_likelihood(self, samples: int, steps: int | None = None) -> None:
        super().check_likelihood(samples, steps)
        check_chain(self, samples, steps)

    def decoder_for(self, options: DiffusionOptions) -> DiffusionDecoder:
        return DiffusionDecoder(self, options)
