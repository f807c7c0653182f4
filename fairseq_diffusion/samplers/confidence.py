"""Samplers that show the words first that the network is surest of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.categorical import AGAIN, REPLACE, ROUNDING, SAMPLE, drawing_of, lowest
from fairseq_diffusion.samplers.grid import Grid
from fairseq_diffusion.samplers.loop import AS_IT_IS, SAMPLERS, Batch, Drawing


class ConfidenceStep(NamedTuple):
    """Of n words the floor(n (1 - a_s)) with the lowest probability are hidden, the others shown.  With a kernel that
    replaces words, hidden ones are noise, drawn anew.

    `rule` says what becomes of words that were shown before: they "stay"; they may be hidden again, by the probability
    that they were read with ("then"), or by that of what the estimate has in their place "now"; or by the latter, but
    only if the network "doubts" them: it predicts them again, with a lower probability than then.

    With `purity` r, positions are drawn in proportion to the largest probability there, and words from
    p^(1 + r s), with s that probability over the largest of a sentence (Tang et al. 2022).
    """

    hidden: float  # 1 - a_s
    how: Drawing
    rule: str
    purity: float | None = None

    @property
    def draws(self) -> bool:
        return self.how.temperature != 0 or self.purity is not None

    def to_hide(self, words: Tensor) -> Tensor:
        """How many of so many words are to be hidden."""
        return (words.double() * self.hidden + ROUNDING).floor()

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor | None) -> Tensor:
        state: Any = batch.state
        free, hidden = batch.free, state.hidden(s_t)
        words, log_p = state.round(estimate)
        if keys is not None and self.purity is not None:
            words, log_p = self._by_purity(batch, estimate, words, log_p, free & hidden, keys)
        elif keys is not None and self.how.temperature:
            drawn = state.sample(estimate, noise.fold(keys, SAMPLE), free & hidden, *self.how)
            words = torch.where(hidden, drawn, words)
            log_p = torch.where(hidden, -state.nll(estimate, words, mask=hidden), log_p)
        merit, may_hide = self._of_shown(state, s_t, words, log_p, previous)
        merit = torch.where(hidden, log_p, merit).masked_fill(~free, torch.inf)
        low = lowest(merit, self.to_hide(free.sum(-1, keepdim=True)))
        fresh = state.mask
        if keys is not None:
            fresh = state.kernel.noise(noise.uniform(noise.fold(keys, REPLACE), s_t.shape[-1]))
        shown = torch.where(hidden & free, state.shown(words), s_t)
        return torch.where(free & low & (hidden | may_hide), fresh, shown)

    def _by_purity(
        self, batch: Batch, estimate: Tensor, words: Tensor, log_p: Tensor, hidden: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Words drawn by purity (the best `words` at temperature 0), and what decides which are shown: the largest are
        a draw without replacement."""
        state: Any = batch.state
        score = (log_p - log_p.masked_fill(~hidden, -torch.inf).amax(-1, keepdim=True)).exp()
        sharper = estimate * (1 + cast(float, self.purity) * score.where(hidden, 0.0))[..., None]
        chance = log_p + noise.gumbel(noise.fold(keys, AGAIN), log_p.shape[-1])
        if self.how.temperature:
            words = state.sample(sharper, noise.fold(keys, SAMPLE), hidden, *self.how)
        return words, chance

    def _of_shown(
        self, state: Any, s_t: Tensor, words: Tensor, log_p: Tensor, previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What words that are shown are ranked by, and which may be hidden again; no matter elsewhere."""
        shown, there = ~state.hidden(s_t), state.plain(s_t)
        if self.rule == "stay":
            return torch.full_like(log_p, torch.inf), torch.zeros_like(shown)
        if self.rule == "now":
            return log_p, shown
        then = -state.nll(previous, there.where(shown, 0), mask=shown)
        return (then, shown) if self.rule == "then" else (log_p, shown & (words == there) & (log_p < then))


class Confidence(NamedTuple):
    """The words that the network is surest of come first."""

    rule: str = "stay"
    purity: float | None = None
    family: str = "categorical"
    needs_hidden: bool = False
    needs_replaced: bool = False
    conditioning: None = None
    word_temperature: float = 0.0

    def steps(
        self, grid: Grid, eta: float | None = None, temperature: float = 1.0, drawing: Drawing = AS_IT_IS
    ) -> list[ConfidenceStep]:
        how = drawing_of(self, eta, temperature, drawing)
        hidden = (1 - grid.level.alpha.square()).tolist()
        return [ConfidenceStep(share, how, self.rule, self.purity) for share in hidden[1:]]

    def busy(self, batch: Batch, steps: Sequence[ConfidenceStep], s: Tensor) -> Tensor | None:
        """Those that hide fewer words than the step before, where words that are shown stay."""
        state: Any = batch.state
        if self.rule != "stay":
            return None
        words, left = batch.free.sum(-1), [(batch.free & state.hidden(s)).sum(-1).double()]
        for step in steps[:-1]:
            left.append(torch.minimum(left[-1], step.to_hide(words)))
        hidden = torch.stack([*left, torch.zeros_like(left[0])])
        return hidden[1:] < hidden[:-1]


SAMPLERS.register("confidence")(Confidence())  # Chang et al. 2022
SAMPLERS.register("purity")(Confidence(purity=1.0, word_temperature=1.0))  # Tang et al. 2022
SAMPLERS.register("mask_predict")(Confidence("then"))  # Ghazvininejad et al. 2019
SAMPLERS.register("routing")(Confidence("doubts"))  # Zheng et al. 2024, deterministic, conditional
SAMPLERS.register("routing_unconditional")(Confidence("now"))  # the same, unconditional
