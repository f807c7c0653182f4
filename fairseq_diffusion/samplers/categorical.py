"""Samplers of words: from y_t and the clean estimate to y_s, s < t; a share a of the words is kept, known or shown.

Here the reverse process itself, and what all of them share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.kernels.rounding import ALL
from fairseq_diffusion.process.schedule import Schedule
from fairseq_diffusion.process.token_kernel import TokenKernel
from fairseq_diffusion.samplers.grid import Grid
from fairseq_diffusion.samplers.loop import AS_IT_IS, SAMPLERS, Batch, Drawing

SAMPLE, STAY, REPLACE, AGAIN = range(4)  # streams of a step's key
LEAST = 1e-12  # of a share
ROUNDING = 1e-9  # so that a whole number of words is not one less


class AncestralStep(NamedTuple):
    """y_0 drawn from the estimate, then y_s from q(y_s | y_t, y_0): exactly the mixture of posteriors over y_0.

    Where words are only ever hidden, one that is shown may be hidden again with a probability `again`; as many more of
    the hidden ones are then shown, so that the share that is shown stays a_s (Wang et al. 2025, ReMDM).
    """

    a_t: float
    a_s: float
    how: Drawing
    again: float = 0.0
    words: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None  # a_s and a_t of words [S, K, L], if their own
    draws: bool = True

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor) -> Tensor:
        state: Any = batch.state
        u, v = (noise.uniform(noise.fold(keys, stream), s_t.shape[-1]) for stream in (STAY, REPLACE))
        y_0 = state.sample(estimate, noise.fold(keys, SAMPLE), self._to_draw(batch, s_t, u), *self.how)
        shares = self.words(torch.where(state.hidden(s_t), y_0, s_t)) if self.words else self.shares()
        back = state.kernel.back(s_t, y_0, *shares, u, v)
        if self.again:
            back = torch.where(~state.hidden(s_t) & self._hides(keys, s_t.shape[-1]), state.mask, back)
        return torch.where(batch.free, back, s_t)

    def _to_draw(self, batch: Batch, s_t: Tensor, u: Tensor) -> Tensor:
        """Where y_0 matters, [S, K, L]: of words that are only ever hidden, those that are shown now."""
        state: Any = batch.state
        if state.replaces or self.words:
            return batch.free
        return batch.free & state.hidden(s_t) & ~state.kernel.stays_hidden(*self.shares(), u)

    def shares(self) -> tuple[Tensor, Tensor]:
        """What a hidden word is shown by: a_s and a_t on the host, as numbers."""
        shown = self.a_s + self.again * self.a_t
        return torch.tensor(shown, dtype=torch.float64), torch.tensor(self.a_t, dtype=torch.float64)

    def _hides(self, keys: Tensor, positions: int) -> Tensor:
        """Where a shown word is hidden again, [S, K, L]."""
        return noise.uniform(noise.fold(keys, AGAIN), positions) < self.again

    def hidden_next(self, hidden: Tensor, kernel: TokenKernel, keys: Tensor) -> Tensor:
        """Where words are hidden behind the step, [S, K, L], if they are now where `hidden` is; whatever the
        estimate."""
        stays = kernel.stays_hidden(*self.shares(), noise.uniform(noise.fold(keys, STAY), hidden.shape[-1]))
        return torch.where(hidden, stays, self._hides(keys, hidden.shape[-1]))


class Ancestral(NamedTuple):
    """The reverse process itself; with `eta` shown words are hidden again, at a step with this probability at most."""

    eta: float | None = None
    family: str = "categorical"
    needs_hidden: bool = False
    needs_replaced: bool = False
    conditioning: None = None
    word_temperature: float = 1.0

    def steps(
        self, grid: Grid, eta: float | None = None, temperature: float = 1.0, drawing: Drawing = AS_IT_IS
    ) -> list[AncestralStep]:
        how = drawing_of(self, eta, temperature, drawing)
        if not how.temperature:
            raise UserError("--word-temperature 0 leaves nothing to draw; pass another, or --sampler confidence")
        pairs = pairwise(grid.level.alpha.square().tolist())
        if grid.schedule is None or not grid.schedule.modifier.by_words:
            most = (self.eta if eta is None else eta) or 0.0
            return [AncestralStep(a_t, a_s, how, min(most, (1 - a_s) / max(a_t, LEAST))) for a_t, a_s in pairs]
        if self.eta is not None:
            raise UserError("words of this model have levels of their own (spindle); pass --sampler ancestral")
        own = (partial(shares_of_words, grid.schedule, s, t) for t, s in pairwise(grid.t.tolist()))
        return [AncestralStep(a_t, a_s, how, words=words) for (a_t, a_s), words in zip(pairs, own)]

    def busy(self, batch: Batch, steps: Sequence[AncestralStep], s: Tensor) -> Tensor | None:
        """Those that reveal a word: when each is revealed is drawn without the network (Chen et al. 2024)."""
        state: Any = batch.state
        if state.replaces or steps[0].words:
            return None
        places = [state.hidden(s)]
        for step, keys in zip(steps[:-1], batch.keys[1:]):
            places.append(batch.free & step.hidden_next(places[-1], state.kernel, keys))
        hidden = torch.stack([*places, torch.zeros_like(places[0])])
        return (hidden[:-1] & ~hidden[1:]).any(-1)


SAMPLERS.register("ancestral")(Ancestral())
SAMPLERS.register("remasking")(Ancestral(eta=0.02, needs_hidden=True))


def shares_of_words(schedule: Schedule, s: float, t: float, words: Tensor) -> tuple[Tensor, Tensor]:
    """The shares kept of words [..., L] at times s and t, each [..., L]."""
    at = (torch.full((), time, dtype=torch.float64, device=words.device) for time in (s, t))
    a_s, a_t = (schedule.level(time, tokens=words).alpha.square() for time in at)
    return a_s, a_t


def lowest(merit: Tensor, count: Tensor) -> Tensor:
    """The `count` [..., 1] positions of least merit [..., L]; of equals, the first."""
    return merit.argsort(dim=-1, stable=True).argsort(dim=-1) < count


def drawing_of(sampler: Any, eta: float | None, temperature: float, drawing: Drawing) -> Drawing:
    """How words are drawn, if no flag of other samplers is set."""
    if temperature != 1:
        raise UserError(
            f"--temperature {temperature} is for Gaussian noise, and this model's states are words; drop it"
        )
    if eta is not None and (getattr(sampler, "eta", None) is None or not 0 <= eta <= 1):
        raise UserError(
            f"--eta is {eta}; with a model whose states are words it is the probability, from 0 to 1, that --sampler "
            "remasking hides a shown word again, or the share that resample draws anew; drop it, or pass that"
        )
    at = sampler.word_temperature if drawing.temperature is None else drawing.temperature
    if at < 0:
        raise UserError(f"--word-temperature is {at}; pass a number above 0, or 0 for the most probable words")
    if at == 0 and drawing.truncation != ALL:
        raise UserError("--top-k and --top-p say what words are drawn from, but none are; pass --word-temperature 1")
    return Drawing(at, drawing.truncation)
