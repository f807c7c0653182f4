"""What training and sampling need of a chain of corrupted states: its noise, its denoiser, its loss.  torch only."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, cast

import torch
from torch import Tensor, nn

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.noise import Stream
from fairseq_diffusion.network.denoiser import Denoiser
from fairseq_diffusion.objective.terms import Objective
from fairseq_diffusion.process.prediction import Prediction, x_0
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.time_sampling import TimeSampler, chance
from fairseq_diffusion.states.base import State
from fairseq_diffusion.states.corruption import Corruption
from fairseq_diffusion.translators.batch import Source

# what of x_0-hat the next estimate is conditioned on
CONDITIONS: dict[str, Callable[[State, Tensor], Tensor]] = {
    "estimate": lambda state, c: c,
    "expected": lambda state, c: state.expected(c),
    "best": lambda state, c: state.clamp(c),
}
VALIDATION = -1  # stands for the update number in the random keys of validation


class Chain(nn.Module):
    """A base class of what denoises step by step; who inherits it sets these."""

    denoiser: Denoiser
    state: Corruption
    schedule: Schedule
    prediction: Prediction  # what the denoiser's output means
    objective: Objective
    time_sampler: TimeSampler
    self_conditioning: str = "none"
    self_conditioning_p: float = 0.5
    self_conditioning_on: str = "estimate"
    self_conditioning_gap: float = 0.0
    label_smoothing: float = 0.0
    unroll: int = 1
    word_time_spread: float = 0.0
    seed: int = 1
    source_drop: float = 0.0  # probability that a sentence trains without its source
    null: nn.Parameter | None  # what the denoiser reads then, [h]
    flags: tuple[str, str] = ("--guidance", "--source-drop")

    # -- the source ---------------------------------------------------------------------------------------------------

    def read(self, states: Tensor, mask: Tensor, dropped: Tensor | None = None) -> Source:
        """Encoded tokens [S, T, h], of which mask is real, as the denoiser reads them; a sentence that is `dropped` [S]
        has a null vector in its first place, and nothing behind it."""
        seen, real = states, mask
        if dropped is not None:
            seen = torch.where(dropped[:, None, None], self.null_source().to(states.dtype), states)
            first = torch.arange(mask.shape[1], device=mask.device) == 0
            real = torch.where(dropped[:, None], first, mask)
        return Source(mask, states, self.denoiser.memory(seen, real))

    def dropped(self, keys: Tensor) -> Tensor | None:
        """Which sentences [B] of a training batch are to do without their source."""
        if not self.training or self.null is None:
            return None
        return noise.uniform(noise.fold(keys, Stream.SOURCE_DROP), 1)[:, 0] < self.source_drop

    def without_source(self, source: Source) -> Source:
        """The batch as the unconditional estimate of guidance sees it: every source, which has a <s>, is
        dropped, and latents stay."""
        first = source.mask & (torch.arange(source.mask.shape[1], device=source.mask.device) == 0)
        null = replace(self.read(source.states, source.mask, source.mask[:, 0]), mask=first)
        return null if source.latents is None else null.beside(*source.memory_of_latents())

    def null_source(self) -> Tensor:
        """What the denoiser reads in a source's place, [h]."""
        if self.null is None:
            raise UserError("{} needs a model trained with {}, for example 0.1".format(*self.flags))
        return self.null

    # -- the denoiser -------------------------------------------------------------------------------------------------

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
            return CONDITIONS[self.self_conditioning_on](cast(State, self.state), c).where(
                (c != 0).any(-1, keepdim=True), 0.0
            )

    def second_pass(self, update: int) -> bool:
        """Whether random self-conditioning has a second pass in this update, alike on all ranks; always in
        validation."""
        p = self.self_conditioning_p if self.training else 1.0
        return chance(noise.fold(torch.tensor(self.seed), update), p)
