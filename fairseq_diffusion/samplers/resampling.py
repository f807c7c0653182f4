"""Samplers that predict words anew at every step, seen ones too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.categorical import REPLACE, ROUNDING, SAMPLE, drawing_of, lowest
from fairseq_diffusion.samplers.grid import Grid
from fairseq_diffusion.samplers.loop import AS_IT_IS, SAMPLERS, Batch, Drawing


class ResampleStep(NamedTuple):
    """All words are predicted anew, or the ceil(n share) that are least probable as they are; of n the floor(n `noise`)
    least probable become noise again."""

    how: Drawing
    noise: float
    share: float = 1.0

    @property
    def draws(self) -> bool:
        return self.how.temperature != 0 or self.noise > 0

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor | None) -> Tensor:
        state: Any = batch.state
        free = batch.free
        if keys is not None and self.how.temperature:
            words = state.sample(estimate, noise.fold(keys, SAMPLE), free, *self.how)
            log_p = -state.nll(estimate, words, mask=free) if self.noise else torch.zeros_like(estimate[..., 0])
        else:
            words, log_p = state.round(estimate)
        if keys is not None and self.noise:
            count = (free.sum(-1, keepdim=True).double() * self.noise + ROUNDING).floor()
            fresh = state.kernel.noise(noise.uniform(noise.fold(keys, REPLACE), s_t.shape[-1]))
            words = torch.where(lowest(log_p.masked_fill(~free, torch.inf), count), fresh, words)
        if self.share < 1:
            count = (free.sum(-1, keepdim=True).double() * self.share - ROUNDING).ceil()
            seen = free & (s_t != state.mask)
            now = (-state.nll(estimate, torch.where(seen, s_t, state.eos), mask=seen)).masked_fill(~seen, -torch.inf)
            free = free & lowest(now.masked_fill(~free, torch.inf), count)
        return torch.where(free, words, s_t)


class Resample(NamedTuple):
    """A sentence is rewritten at every step, whatever the time (Savinov et al. 2022); or but for what is not sure yet,
    which `returns` to noise by the share that is noise at that time."""

    returns: bool = False
    eta: float | None = None  # share of the words that a step draws anew
    word_temperature: float = 0.3
    family: str = "categorical"
    needs_hidden: bool = False
    needs_replaced: bool = True
    conditioning: None = None

    def steps(
        self, grid: Grid, eta: float | None = None, temperature: float = 1.0, drawing: Drawing = AS_IT_IS
    ) -> list[ResampleStep]:
        how, share = drawing_of(self, eta, temperature, drawing), 1.0 if eta is None else eta
        if not share:
            raise UserError("--eta 0 leaves no word to draw anew; pass the share of the words that a step draws")
        kept = grid.level.alpha.square().tolist()[1:]
        return [ResampleStep(how, 1 - a if self.returns else 0.0, share) for a in kept]

    def busy(self, batch: Batch, steps: Sequence[ResampleStep], s: Tensor) -> None:
        """Any word may change at any step."""


SAMPLERS.register("resample")(Resample(eta=1.0))
SAMPLERS.register("renoise")(Resample(returns=True, word_temperature=0.0))  # Zheng et al. 2024, for uniform noise
