"""Latents of a target: made of it in training; in decoding from noise, given the source, before any word.  torch only.

M vectors u_0 stand for what words that are predicted at once must agree on.  The decoder of words attends to them
beside the source; a chain of their own, with a small denoiser, learns them given the source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.network.target_encoder import TargetEncoder
from fairseq_diffusion.objective.reduction import Mean
from fairseq_diffusion.objective.terms import Objective
from fairseq_diffusion.process.prediction import Prediction
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import Stratified
from fairseq_diffusion.samplers.grid import Grid, make_grid
from fairseq_diffusion.samplers.loop import Refinement, Step, sample, sampler_for
from fairseq_diffusion.states.vectors import LatentState
from fairseq_diffusion.translators.batch import LatentStep, Source
from fairseq_diffusion.translators.chain import VALIDATION, Chain
from fairseq_diffusion.translators.diffusion_decoding import Rows
from fairseq_diffusion.translators.diffusion_training import TrainingStep
from fairseq_diffusion.translators.latent_decoding import LatentDecoder

if TYPE_CHECKING:
    from fairseq_diffusion.translators.base import Translator

VIEWS = 0.1  # temperature of the contrast between two views
GAIN, MADE_GAIN, LEAST_GAIN = "latents_gain", "latents_made_gain", 0.01
TRIALS, TRIAL_STEPS = 4, 10  # of the chain, in validation
DROP, HIDE, SMEAR, CHAIN = range(4)  # streams of a key


@dataclass(frozen=True)
class LatentTraining:
    """How latents are learnt.

    Args:
        weight: of the chain's loss, from update `start` on.
        drop: probability that a sentence's words do without latents.
        noise: standard deviation of what is added to them for the words.
        penalty: weight of |u_0|^2 / 2, where latents are not all of one norm.
        contrast: weight of telling a sentence's latents from those of others by another view, with other words hidden.
    """

    weight: float = 1.0
    start: int = 0
    drop: float = 0.15
    noise: float = 0.0
    penalty: float = 0.0
    contrast: float = 0.0

    @property
    def weights(self) -> dict[str, float]:
        found = {"latents": self.weight, "latents_penalty": self.penalty, "latents_contrast": self.contrast}
        return {name: weight for name, weight in found.items() if weight}


class Course(NamedTuple):
    """Levels of noise, and the steps from each to the next."""

    grid: Grid
    steps: Sequence[Step]


class Made(NamedTuple):
    """Latents of K candidates for each of S sentences, and the network calls they took."""

    u: Tensor  # [S, K, M, D]
    calls: Tensor  # [S, K]


class Latents(Chain):
    """The encoder of targets, the chain that takes its place in decoding, and the map to what words attend to."""

    flags = "--latents-guidance", "--latents-source-drop"
    self_conditioning = "random"
    state: LatentState

    def __init__(
        self,
        encoder: TargetEncoder,
        denoiser: Denoiser,
        state: LatentState,
        schedule: Schedule,
        prediction: Prediction,
        objective: Objective,
        training: LatentTraining = LatentTraining(),
        source_drop: float = 0.0,
        seed: int = 1,
    ):
        super().__init__()
        self.encoder, self.denoiser, self.state = encoder, denoiser, state
        self.schedule, self.prediction, self.objective = schedule, prediction, objective
        self.how, self.source_drop, self.seed, self.time_sampler = training, source_drop, seed, Stratified()
        count, hidden = encoder.queries.shape
        self.enter = nn.Linear(state.dim, hidden)
        self.places = nn.Parameter(torch.zeros(count, hidden))
        self.null = nn.Parameter(torch.zeros(hidden)) if source_drop else None

    @property
    def count(self) -> int:
        return len(self.places)

    def beside(self, translator: Translator, source: Source, u: Tensor, present: Tensor) -> Source:
        """The source with latents u [S, M, D] beside it, of the sentences where `present` [S] is true."""
        mask = present[:, None].expand(u.shape[:2])
        vectors = self.enter(u.to(self.enter.weight.dtype)) + self.places
        return source.beside(translator.remember(vectors, mask), mask)

    # -- training -----------------------------------------------------------------------------------------------------

    def step(
        self, translator: Translator, source: Source, target: Tensor, mask: Tensor, keys: Tensor, update: int
    ) -> LatentStep:
        """Latents of targets [B, L] of which mask is real, for the words to read and the chain to learn."""
        keys, how = noise.fold(keys, Stream.LATENTS), self.how
        view, other = (self.encoder.seen(mask, noise.fold(keys, HIDE, number)) for number in range(2))
        u = self.encoder(target, mask, view)
        losses = {"latents": self._chain_loss(source, u.detach(), keys, update)}
        if how.penalty:
            losses["latents_penalty"] = u.square().sum((1, 2)) / 2
        if how.contrast:
            losses["latents_contrast"] = contrast(u, self.encoder(target, mask, other))
        present = torch.ones(len(u), dtype=torch.bool, device=u.device)
        read = u
        if self.training:
            present = noise.uniform(noise.fold(keys, DROP), 1)[:, 0] >= how.drop
            read = u + how.noise * noise.normal(noise.fold(keys, SMEAR), *u.shape[1:])
        return LatentStep(self.beside(translator, source, read, present), u.detach(), losses, how.weights)

    def _chain_loss(self, source: Source, u: Tensor, keys: Tensor, update: int) -> Tensor:
        """Of the denoiser of latents, [B]; before its first update it is 0, with gradients that are, too, as all ranks
        expect some."""
        keys = noise.fold(keys, CHAIN)
        seen = self.read(source.states, source.mask, self.dropped(keys))
        mask = torch.ones(u.shape[:2], dtype=torch.bool, device=u.device)
        second_pass = self.second_pass(update if self.training else VALIDATION)
        terms = self.objective.terms(TrainingStep(self, seen, u, mask, keys, second_pass).outcome(), mask)
        loss = torch.stack([weight * terms[name] for name, weight in self.objective.weights.items()]).sum(0)
        return loss if update >= self.how.start or not self.training else 0 * loss

    def gains(
        self,
        translator: Translator,
        source: Source,
        step: LatentStep,
        keys: Tensor,
        loss: Callable[[Source], Tensor],
        update: int,
        words: Tensor,
    ) -> dict[str, Mean]:
        """How much the loss of a word falls by the target's own latents, and by those that the chain makes, once it has
        been learnt; `loss` [B] is the mean of that of each target's `words` [B] given a source.

        Of several that are made, the target's probabilities are averaged: where several translations are right, a
        latent may stand for another one.  Empty where words are always trained with latents: what they cost without
        would mean nothing.
        """
        if not self.how.drop:
            return {}
        without = loss(source)
        gains = {GAIN: Mean.of(without - loss(step.source))}
        if update > self.how.start:
            each = noise.fold(noise.fold(keys, Stream.LATENTS)[:, None], torch.arange(TRIALS, device=keys.device))
            made = self.make(source, each, self.course(TRIAL_STEPS)).u.unbind(1)
            everywhere = torch.ones(len(each), dtype=torch.bool, device=keys.device)
            log_p = torch.stack([-words * loss(self.beside(translator, source, u, everywhere)) for u in made])
            gains[MADE_GAIN] = Mean.of(without + (log_p.logsumexp(0) - math.log(TRIALS)) / words)
        return gains

    # -- decoding -----------------------------------------------------------------------------------------------------

    def course(self, steps: int) -> Course:
        """So many steps of DDIM."""
        grid = make_grid(self.schedule, steps)
        return Course(grid, sampler_for(self.state, "ddim").steps(grid))

    @torch.no_grad()
    def make(self, source: Source, keys: Tensor, course: Course, guidance: float = 1.0) -> Made:
        """Latents from noise, by random keys [S, K]."""
        mask = torch.ones(*keys.shape, self.count, dtype=torch.bool, device=keys.device)
        seen = self.read(source.states, source.mask)
        null = None if guidance == 1 else self.without_source(source)
        rows = Rows(self, self.denoise, seen, keys[None], mask, null)
        found = sample(rows, *course, Refinement(guidance, self.encoder.normalised))
        return Made(found.estimate, found.calls)

    def check_without(self, options: Any) -> None:
        """Refuse to decode without latents what was never trained so, and flags of them."""
        if not self.how.drop:
            raise UserError(
                "--latents-steps 0 decodes without latents, but this model was never trained so (--latents-drop 0); "
                "pass 1 or more"
            )
        if options.latents_guidance != 1:
            raise UserError(
                f"--latents-guidance is {options.latents_guidance}, but --latents-steps 0 makes no latents; drop it"
            )

    def decoder(self, translator: Translator, options: Any) -> LatentDecoder:
        return LatentDecoder(translator, self, options)


def contrast(u: Tensor, other: Tensor) -> Tensor:
    """-log of the probability that each of two views, [B, M, D], is told from those of all other sentences, [B]."""
    one, two = (F.normalize(view.flatten(1), dim=-1) for view in (u, other))
    similar, own = one @ two.T / VIEWS, torch.arange(len(u), device=u.device)
    both = [F.cross_entropy(logits, own, reduction="none") for logits in (similar, similar.T)]
    return torch.stack(both).mean(0)
