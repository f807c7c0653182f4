"""A training pass of a one-pass translator: the blocks' likelihoods, and what glancing reveals.  torch only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import Canvas, Scored
from fairseq_diffusion.alignment.glancing import Boundary
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.objective.reduction import Mean
from fairseq_diffusion.translators.batch import Source

if TYPE_CHECKING:
    from fairseq_diffusion.translators.one_pass import OnePassTranslator

# boundary s, index [B, L] of what is revealed so far, and the block before it, scored -> the new index
Reveal = Callable[[int, Tensor, "Scored | None"], Tensor]


def no_glancing(s: int, index: Tensor, before: Scored | None) -> Tensor:
    """Reveals nothing but what is given."""
    return index


class Block(NamedTuple):
    """What a block of the decoder was shown and says."""

    shown: Tensor  # [B, L], index of what was revealed to it
    states: Tensor  # [B, L, h], which words are read from
    scored: Scored


@dataclass(frozen=True)
class TrainingPass:
    """A batch of targets on their canvases."""

    translator: OnePassTranslator
    source: Source
    target: Tensor  # [B, M]
    mask: Tensor  # [B, M]
    canvas: Canvas

    def glanced(self, keys: Tensor, update: int) -> list[Block]:
        """The blocks with glancing, behind a first pass without gradient where the system has one."""
        glance, first = self.translator.glance, None
        if glance.two_pass and any(glance.shows(s, update) for s in range(self.translator.decoder.blocks)):
            with torch.no_grad(), same_dropout(self.target.device):
                first = self.blocks(skip_scores=True)[-1].scored
            torch.clear_autocast_cache()  # older torch would reuse weights cast in there, which have no gradient
        return self.blocks(Glancing(self, keys, update, first))

    def blocks(self, reveal: Reveal = no_glancing, skip_scores: bool = False) -> list[Block]:
        """All blocks; `reveal` is called before each.

        With `skip_scores`, those alone whose scores are needed: the last, and blocks that feed each other.
        """
        model = self.translator
        copied = model.copied(self.source, self.canvas)
        index, h, scored = model.alignment.given(self.canvas, self.mask), None, None
        found: list[Block] = []
        for s in range(1, model.decoder.blocks + 1):
            index = reveal(s - 1, index, scored)
            h = model.block(s, h, self.fed(index, scored), self.canvas, self.source, copied)
            if not skip_scores or model.feed == "self" or s == model.decoder.blocks:
                states, batch = model.decoder.read(h), (self.target, self.mask, self.canvas)
                scored = model.alignment.score(states, model.decoder.vocabulary, *batch, index)
                found.append(Block(index, states, scored))
        return found

    def cost(self) -> Tensor:
        """The last block's loss of a word, as a mean over those of each sentence, [B], with nothing revealed."""
        scored = self.blocks(skip_scores=True)[-1].scored
        return scored.nll / scored.count

    def fed(self, index: Tensor, before: Scored | None) -> Tensor:
        """z [B, L]: true words where they are revealed; elsewhere the mask, or what the block before predicts."""
        true = self.target.gather(1, index.clamp(min=0))
        hidden = self.canvas.tokens
        if before is not None and self.translator.feed == "self":
            hidden = torch.where(self.canvas.hidden, before.best, hidden)
        return torch.where(index >= 0, true, hidden)

    def aligned(self, block: Block) -> tuple[Tensor, Tensor]:
        """The word of each position by a block's best alignment, and where it was not revealed, both [B, L]."""
        align = block.scored.align()
        return self.target.gather(1, align.clamp(min=0)), (align >= 0) & (block.shown < 0)

    def means(self, last: Block) -> dict[str, Mean]:
        """Of the last block: how much of the canvas was revealed to it, and how many targets do not fit on it."""
        revealed = (last.shown >= 0) & self.canvas.hidden
        return {
            "revealed": Mean(revealed.sum(), self.canvas.hidden.sum()),
            "impossible": Mean.of(last.scored.impossible),
        }


class Glancing:
    """Reveals true words of a batch of targets, from boundary to boundary."""

    def __init__(self, run: TrainingPass, keys: Tensor, update: int, first: Scored | None):
        """`first` is the scored last block of a first pass, which then decides what is wrong; else each block does."""
        self.run, self.keys, self.update = run, keys, update
        self.first = None if first is None else (first.best, first.align())
        self.remainder = torch.zeros_like(keys, dtype=torch.double)

    def __call__(self, s: int, index: Tensor, before: Scored | None) -> Tensor:
        """`index` [B, L] with what boundary s reveals along the best alignment."""
        glance = self.run.translator.glance
        if not glance.shows(s, self.update):
            return index
        best, align = self.first or self._predicted(before)
        hidden = self.run.translator.alignment.may_show(align) & (index < 0)
        wrong = hidden & (best != self.run.target.gather(1, align.clamp(min=0)))
        boundary = Boundary(s, hidden, wrong, noise.fold(self.keys, s), self.remainder)
        chosen, self.remainder = glance(boundary, self.update)
        return torch.where(chosen, align, index)

    def _predicted(self, before: Scored | None) -> tuple[Tensor, Tensor]:
        """The most probable words and the alignment, both [B, L]; no words before the first block."""
        if before is not None:
            return before.best, before.align()
        align = self.run.translator.alignment.known_index(self.run.mask)
        return torch.full_like(align, -1), align


@contextmanager
def same_dropout(device: torch.device) -> Iterator[None]:
    """What follows draws the random numbers that are drawn in here, so both passes drop the same."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
