"""The sampling loop, which alone counts network calls, and the contracts of samplers and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Protocol

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels.rounding import ALL, Truncation
from fairseq_diffusion.network.joint import each
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.samplers.early_exit import ActiveRows
from fairseq_diffusion.samplers.grid import Grid
from fairseq_diffusion.states.base import State
from fairseq_diffusion.states.corruption import Corruption


class Step(Protocol):
    """One step of a sampler, from s_t to s_s, s < t."""

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers, where noise is not random words; there all may."""

    def __call__(self, batch: Batch, s_t: Tensor, estimate: Tensor, previous: Tensor, keys: Tensor | None) -> Tensor:
        """s_s from s_t [S, K, L, ...], this step's x_0-hat [S, K, L, d], the previous one (of words: what they are read
        from), and keys [S, K]."""


class Drawing(NamedTuple):
    """How words are drawn from an estimate; with temperature 0 they are the most probable ones."""

    temperature: float | None = None  # None: the sampler's own
    truncation: Truncation = ALL


AS_IT_IS = Drawing()


class Sampler(Protocol):
    """A rule to step with, for states of one family."""

    family: str
    needs_hidden: bool  # it takes words that are seen for right, so in training words were hidden and not replaced
    needs_replaced: bool  # it changes words that are seen, so they must have been replaced in training
    conditioning: tuple[float, float] | None  # noise levels to condition the network on, if not the sample's own
    word_temperature: float | None  # that words are drawn at, unless another is asked for; None: it draws none

    def steps(
        self,
        grid: Grid,
        eta: float | None = None,
        temperature: float = 1.0,
        drawing: Drawing = AS_IT_IS,
    ) -> Sequence[Step]:
        """The M steps over a grid; `eta` and `drawing` replace the sampler's own."""

    def busy(self, batch: Batch, steps: Sequence[Step], s: Tensor) -> Tensor | None:
        """Which of the steps from s change anything, whatever the estimates, and whether the last is read, [M, S, K];
        the others need no estimate.  None: this is not known beforehand."""


SAMPLERS: Registry[Any] = Registry("sampler")


def sampler_for(state: Corruption, name: str) -> Sampler:
    """The sampler of this name, if it can step through these states."""
    sampler: Sampler = SAMPLERS[name]
    if sampler.family != state.family:
        able = ", ".join(other for other in SAMPLERS if SAMPLERS[other].family == state.family)
        raise UserError(
            f"--sampler {name} is for {sampler.family} states, but this model's are {state.family}; choose one "
            f"of: {able}"
        )
    if sampler.needs_hidden and (state.replaces or not state.hides):
        raise UserError(
            f"--sampler {name} takes words that are seen for right, but in this model's training some were replaced "
            "(--mask-share below 1); pass --sampler ancestral or resample"
        )
    if sampler.needs_replaced and not state.replaces:
        raise UserError(
            f"--sampler {name} changes words that are seen, but this model has seen only right ones in training "
            "(--mask-share 1); pass --sampler mask_predict"
        )
    return sampler


class Batch(Protocol):
    """S sentences with K candidates each, as the loop needs them."""

    @property
    def state(self) -> State:
        """What is corrupted."""

    @property
    def keys(self) -> Tensor:
        """[M, S, K], for the M random numbers drawn on the way."""

    @property
    def mask(self) -> Tensor:
        """[S, K, L], true at real positions."""

    @property
    def free(self) -> Tensor:
        """[S, K, L], true where words are corrupted and predicted."""

    def settle(self, estimate: Tensor) -> Tensor:
        """The clean estimate [S, K, L, d], with what is known of it."""

    def denoise(self, s_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """The clean estimate [S, K, L, d] from s_t and the self-condition c [S, K, L, d], conditioned on t []."""

    def denoise_without_source(self, s_t: Tensor, t: Tensor) -> Tensor:
        """The clean estimate by a network that sees neither the source nor an earlier estimate."""

    def select(self, sentences: Tensor, members: Tensor) -> Batch:
        """The batch of some sentences [S'] and some candidates of each, [S', K']."""


@dataclass(frozen=True)
class Sample:
    """Where each candidate ended, the network calls it took part in, and whether it was kept to the end."""

    s: Tensor  # [S, K, L, ...]
    estimate: Tensor  # [S, K, L, d]
    calls: Tensor  # [S, K]
    alive: Tensor  # [S, K]
    remaining: int  # candidates of each sentence that are alive


@dataclass(frozen=True)
class Refinement:
    """What is done to each clean estimate before anything else sees it.

    `guidance` w is classifier-free (Ho and Salimans 2022): x_0 = u + w (x_0 - u) with u the one without a source.
    Where words are expected, it acts on their mean vectors, and in the same way on what words are read from.
    """

    guidance: float = 1.0
    clamp: Callable[[Tensor], Tensor] | None = None

    @property
    def calls(self) -> int:
        return 1 if self.guidance == 1 else 2

    def __call__(self, batch: Batch, s_t: Tensor, t: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
        """The estimate that words are read from, and its x_0-hat; one tensor, unless words are expected."""
        state = batch.state
        x_0 = state.clean(estimate)
        if self.guidance != 1:
            unconditional = batch.denoise_without_source(s_t, t)
            guided = lambda u, x: torch.lerp(u, x, self.guidance)  # noqa: E731
            x_0 = each(guided, state.clean(unconditional), x_0)
            x_0 = x_0 if state.expects else state.clean(x_0)
            estimate = each(guided, unconditional, estimate) if state.expects else x_0
        x_0 = batch.settle(x_0 if self.clamp is None else self.clamp(estimate))
        return estimate if state.expects else x_0, x_0


def from_noise(batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
    """s at the first level, and no estimate."""
    s = batch.state.prior(batch.keys[0], batch.mask, grid.level[0])
    return s, batch.state.blank(s)


def refined(
    batch: Batch, refine: Refinement, s_t: Tensor, t: Tensor, c: Tensor, sentences: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The next estimate and its x_0-hat, of these `sentences` alone if they are not all; the others, which only a state
    of words has, keep theirs, c."""
    if sentences is None:
        return refine(batch, s_t, t, batch.denoise(s_t, t, c))
    if not len(sentences):
        return c, c
    part = batch.select(sentences, torch.arange(s_t.shape[1], device=s_t.device).expand(len(sentences), -1))
    s, own = s_t[sentences], c[sentences]
    found = c.index_copy(0, sentences, refine(part, s, t, part.denoise(s, t, own))[0])
    return found, found


def called(busy: Tensor | None, steps: int) -> list[Tensor | None]:
    """For each step the numbers of the sentences that the network is called for, where not all; busy [M, S, K]."""
    if busy is None:
        return [None] * steps
    any_candidate = busy.any(-1)
    order = (~any_candidate).long().argsort(dim=-1, stable=True)
    counts = any_candidate.sum(-1).tolist()  # the one time that the host waits
    return [None if count == order.shape[1] else numbers[:count] for count, numbers in zip(counts, order)]


@torch.no_grad()
def sample(
    batch: Batch,
    grid: Grid,
    steps: Sequence[Step],
    refine: Refinement = Refinement(),
    rows: ActiveRows | None = None,
    on_step: Callable[[ActiveRows, Tensor, Tensor], None] | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    busy: Tensor | None = None,
) -> Sample:
    """Walk `steps` over `grid`; each x_0-hat conditions the next estimate.  What is read may be a carried-over one.

    Args:
        batch, grid, steps, refine: candidates, times and noise levels, the sampler's steps, guidance and clamping.
        rows: decides which candidates leave the batch on the way (default: none).
        on_step: called with the active rows, s_t and the estimate of each step.
        start: s at the first level, and an estimate that conditions the first one (default: noise, and none).
        busy: [M, S, K], false where a step needs no new estimate (default: all do); then no rows may leave the batch.
    """
    s, c = start or from_noise(batch, grid)
    state, mask, estimate = batch.state, batch.mask, c
    rows = rows or ActiveRows(mask.shape[0], mask.shape[1], mask.device)
    times = grid.conditioning_t.float().to(mask.device, non_blocking=True)
    for i, (step, sentences) in enumerate(zip(steps, called(busy, len(steps)))):
        previous = c if state.expects else estimate
        new, c = refined(batch, refine, s, times[i], c, sentences)
        estimate = state.carried(s, new, estimate) if i else new
        rows.count_calls(refine.calls, sentences)
        if on_step is not None:
            on_step(rows, s, estimate)
        if i + 1 == len(steps):
            break
        s_t, s = s, step(batch, s, c, previous, batch.keys[i + 1] if step.draws or state.replaces else None)
        if (kept := rows.drop(i + 1, s_t, estimate)) is not None:
            s, estimate, c = (each(kept.__call__, x) for x in (s, estimate, c))
            if not len(kept.sentences):
                break
            batch = batch.select(*kept)
    s, estimate = rows.final(s, estimate)
    return Sample(s, estimate, rows.calls, rows.alive, rows.remaining)
