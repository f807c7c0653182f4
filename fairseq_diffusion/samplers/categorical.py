"""Samplers of words: from y_t and the clean estimate to y_s, s < t; a share a of the words is kept, known or shown."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.grid import Grid
from fairseq_diffusion.samplers.loop import SAMPLERS, Batch

SAMPLE, STAY, REPLACE = range(3)  # streams of a step's key
ROUNDING = 1e-9  # so that a whole number of words is not one less


class AncestralStep(NamedTuple):
    """y_0 drawn from the estimate, then y_s from q(y_s | y_t, y_0): exactly the mixture of posteriors over y_0."""

    a_t: float
    a_s: float
    temperature: float
    draws: bool = True

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor) -> Tensor:
        state: Any = batch.state
        y_0 = state.sample(estimate, noise.fold(keys, SAMPLE), self.temperature)
        u, v = (noise.uniform(noise.fold(keys, stream), s_t.shape[-1]) for stream in (STAY, REPLACE))
        a_s, a_t = (torch.tensor(a, dtype=torch.float64) for a in (self.a_s, self.a_t))  # on the host: as numbers
        return torch.where(state.free(batch.mask), state.kernel.back(s_t, y_0, a_s, a_t, u, v), s_t)


class Ancestral(NamedTuple):
    """The reverse process itself."""

    family: str = "categorical"
    needs_hidden: bool = False
    needs_replaced: bool = False
    conditioning: None = None
    word_temperature: float = 1.0

    def steps(
        self, grid: Grid, eta: float | None = None, temperature: float = 1.0, word_temperature: float | None = None
    ) -> list[AncestralStep]:
        at = temperature_of(self, eta, temperature, word_temperature)
        if not at:
            raise UserError("--word-temperature 0 leaves nothing to draw; pass another, or --sampler confidence")
        a = grid.level.alpha.square().tolist()
        return [AncestralStep(a_t, a_s, at) for a_t, a_s in zip(a, a[1:])]


class ConfidenceStep(NamedTuple):
    """Of n words the floor(n (1 - a_s)) with the lowest probability are hidden, the others shown.

    `rule` says what becomes of words that were shown before: they "stay"; they may be hidden again, by the probability
    that they were read with ("then"), or by that of what the estimate has in their place "now"; or by the latter, but
    only if the network "doubts" them: it predicts them again, with a lower probability than then.
    """

    hidden: float  # 1 - a_s
    temperature: float
    rule: str

    @property
    def draws(self) -> bool:
        return self.temperature > 0

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor | None) -> Tensor:
        state: Any = batch.state
        free, hidden = state.free(batch.mask), state.hidden(s_t)
        words, log_p = state.round(estimate)
        if keys is not None:
            words = torch.where(hidden, state.sample(estimate, keys, self.temperature), words)
            log_p = torch.where(hidden, -state.nll(estimate, words, mask=hidden), log_p)
        merit, may_hide = self._of_shown(state, s_t, words, log_p, previous)
        merit = torch.where(hidden, log_p, merit).masked_fill(~free, torch.inf)
        count = (free.sum(-1, keepdim=True).double() * self.hidden + ROUNDING).floor()
        low = merit.argsort(dim=-1, stable=True).argsort(dim=-1) < count
        return torch.where(free & low & (hidden | may_hide), state.mask, torch.where(hidden & free, words, s_t))

    def _of_shown(
        self, state: Any, s_t: Tensor, words: Tensor, log_p: Tensor, previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What words that are shown are ranked by, and which may be hidden again; no matter elsewhere."""
        if self.rule in ("stay", "now"):
            return (log_p if self.rule == "now" else torch.full_like(log_p, torch.inf)), torch.ones_like(s_t).bool()
        shown = ~state.hidden(s_t)
        then = -state.nll(previous, s_t.where(shown, 0), mask=shown)
        return (then, shown) if self.rule == "then" else (log_p, (words == s_t) & (log_p < then))


class Confidence(NamedTuple):
    """The words that the network is surest of come first."""

    rule: str = "stay"
    family: str = "categorical"
    needs_hidden: bool = True
    needs_replaced: bool = False
    conditioning: None = None
    word_temperature: float = 0.0

    def steps(
        self, grid: Grid, eta: float | None = None, temperature: float = 1.0, word_temperature: float | None = None
    ) -> list[ConfidenceStep]:
        at = temperature_of(self, eta, temperature, word_temperature)
        hidden = (1 - grid.level.alpha.square()).tolist()
        return [ConfidenceStep(share, at, self.rule) for share in hidden[1:]]


class ResampleStep(NamedTuple):
    """All words are drawn anew from the estimate."""

    temperature: float

    @property
    def draws(self) -> bool:
        return self.temperature > 0

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor | None) -> Tensor:
        state = batch.state
        words = state.round(estimate)[0] if keys is None else state.sample(estimate, keys, self.temperature)
        return torch.where(state.free(batch.mask), words, s_t)


class Resample(NamedTuple):
    """A sentence is rewritten at every step, whatever the time (Savinov et al. 2022)."""

    family: str = "categorical"
    needs_hidden: bool = False
    needs_replaced: bool = True
    conditioning: None = None
    word_temperature: float = 0.3

    def steps(
        self, grid: Grid, eta: float | None = None, temperature: float = 1.0, word_temperature: float | None = None
    ) -> list[ResampleStep]:
        at = temperature_of(self, eta, temperature, word_temperature)
        return [ResampleStep(at)] * grid.steps


SAMPLERS.register("ancestral")(Ancestral())
SAMPLERS.register("confidence")(Confidence())  # Chang et al. 2022
SAMPLERS.register("mask_predict")(Confidence("then"))  # Ghazvininejad et al. 2019
SAMPLERS.register("routing")(Confidence("doubts"))  # Zheng et al. 2024, deterministic, conditional
SAMPLERS.register("routing_unconditional")(Confidence("now"))  # the same, unconditional
SAMPLERS.register("resample")(Resample())


def temperature_of(sampler: Any, eta: float | None, temperature: float, word_temperature: float | None) -> float:
    """That words are drawn at, if no flag of Gaussian samplers is set."""
    if eta is not None or temperature != 1:
        flag = f"--temperature {temperature}" if eta is None else f"--eta {eta}"
        raise UserError(f"{flag} is for Gaussian noise, and this model's states are words; drop it")
    if word_temperature is not None and word_temperature < 0:
        raise UserError(
            f"--word-temperature is {word_temperature}; pass a number above 0, or 0 for the most probable words"
        )
    return sampler.word_temperature if word_temperature is None else word_temperature
