"""The parts of a translator that writes in one pass put together: training losses, and writing.  torch only."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator, NamedTuple, cast

import torch
from torch import Tensor, nn

from fairseq_diffusion.alignment.base import BackEnd, Canvas, Finish, Guess, Reading, Shown, Written
from fairseq_diffusion.alignment.glancing import Boundary, Glance, keep_schedule, surest
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.network.block_decoder import BlockDecoder
from fairseq_diffusion.network.encoder import Encoder
from fairseq_diffusion.network.length import LengthHead
from fairseq_diffusion.objective.reduction import Reduction
from fairseq_diffusion.registry import Registry
from fairseq_diffusion.translators import source as encoded

Said = list[tuple[Tensor, Reading]]
Reveal = Callable[[int, Tensor, "Reading | None"], Tensor]  # boundary, place, reading of the block before it -> place
FEEDS = ("mask", "self")

# Weights of the T blocks' losses, which add up to 1; s from 1.
BLOCK_WEIGHTS: Registry[Callable[[int, int], float]] = Registry("block weights")
BLOCK_WEIGHTS.register("uniform")(lambda s, blocks: 1 / blocks)
BLOCK_WEIGHTS.register("increasing")(lambda s, blocks: 2 * s / (blocks * (blocks + 1)))


class Mean(NamedTuple):
    """Something to watch: a sum and what it is to be divided by."""

    total: Tensor
    number: Tensor


@dataclass(frozen=True)
class Losses:
    """A batch's unweighted loss shares, [B] a term, and what curves want to see."""

    terms: dict[str, Tensor]
    means: dict[str, Mean]


@dataclass(frozen=True)
class Source(encoded.Source):
    """A source of which words are copied, too."""

    words: Tensor  # [S, T, h], their embeddings

    def by_token(self) -> dict[str, Tensor]:
        return {**super().by_token(), "words": self.words}


class GlancingTranslator(nn.Module):
    """Encoder, a decoder in T blocks, a back end, and what glancing shows; whatever the paper."""

    def __init__(
        self,
        encoder: Encoder,
        decoder: BlockDecoder,
        back_end: BackEnd,
        copy: nn.Module,
        glance: Glance,
        length: LengthHead | None,
        reduction: Reduction,
        block_weights: str = "uniform",
        feed: str = "mask",
    ):
        super().__init__()
        self.encoder, self.decoder, self.back_end, self.copy = encoder, decoder, back_end, copy
        self.glance, self.length, self.reduction = glance, length, reduction
        blocks = decoder.blocks
        self.weights = {f"block_{s}": BLOCK_WEIGHTS[block_weights](s, blocks) for s in range(1, blocks + 1)}
        self.feed, self.keep = feed, keep_schedule(glance.keep, blocks)

    def encode(self, tokens: Tensor, mask: Tensor) -> Source:
        """Source tokens [S, T], mask true at real ones."""
        states = self.encoder(tokens, mask)
        return Source(mask, states, self.decoder.memory(states, mask), self.encoder.embedding(tokens))

    # -- training -----------------------------------------------------------------------------------------------------

    def losses(self, source: Source, target: Tensor, mask: Tensor, keys: Tensor, update: int) -> Losses:
        """Losses of targets [B, M]; what is glanced at depends on `keys` [B] and `update`, and is nothing in eval."""
        lengths = (mask.sum(-1, keepdim=True), mask.shape[1]) if self.back_end.predicts_length else None
        pupil = Pupil(self, source, target, mask, self.canvas(source, lengths))
        place, earlier = pupil.given, None
        shows = any(self.glance.shows(s, update) for s in range(self.decoder.blocks))
        if self.training and self.glance.two_pass and shows:
            with torch.no_grad(), same_dropout(target.device):
                earlier = pupil.say(place, nothing_more, graded=False)[-1][1]
            torch.clear_autocast_cache()  # older torch would reuse weights cast in there, which have no gradient

        said = pupil.say(place, Showing(pupil, keys, update, earlier) if self.training else nothing_more)
        terms = {
            f"block_{s}": self.reduction.share(reading.nll / reading.due, mask)
            for s, (_, reading) in enumerate(said, 1)
        }
        length = self.length_losses(source, mask)
        return Losses({**terms, **length.terms}, {**pupil.means(*said[-1]), **length.means})

    def length_losses(self, source: Source, mask: Tensor) -> Losses:
        """Loss of the length predictor alone, for targets of which mask [B, M] is real; empty where there is none."""
        if self.length is None:
            return Losses({}, {})
        logits, true = self.length(source.states, source.mask), mask.sum(-1)
        right = logits.argmax(-1) == self.length.class_of(source.length, true)
        share = self.reduction.share(self.length.loss(logits, source.length, true), mask)
        return Losses({"length": share}, {"length_accuracy": Mean(right.sum(), torch.ones_like(true).sum())})

    def canvas(self, source: Source, lengths: tuple[Tensor, int] | None) -> Canvas:
        """An empty canvas: of `lengths` ([S, K], and the longest), or in the back end's proportion to the source."""
        return self.back_end.canvas(*(lengths or self.back_end.sizes(source.mask)))

    def copied(self, source: Source, canvas: Canvas) -> Tensor | None:
        """What the canvas' positions copy from the source, [S K, L, h]."""
        candidates = len(canvas.mask) // len(source.mask)
        words, mask = (part.repeat_interleave(candidates, 0) for part in (source.words, source.mask))
        return self.copy(words, mask, canvas.mask)

    def step(
        self, s: int, h: Tensor | None, z: Tensor, canvas: Canvas, source: Source, copied: Tensor | None
    ) -> Tensor:
        """h_s [N, L, h] from that of the block before, None for the first, and what is shown, z [N, L]."""
        h = self.decoder.enter(z, canvas.mask, copied) if h is None else self.decoder.fuse(s, h, z)
        return self.decoder.block(s, h, canvas.mask, source.memory)

    # -- writing ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def write(
        self,
        source: Source,
        lengths: tuple[Tensor, int] | None,
        finish: Finish,
        exit_block: int | None = None,
        passes: int = 1,
        on_show: Callable[[Shown], None] | None = None,
    ) -> Written:
        """Translations of S sources, of the `lengths` to try where the back end has any.

        `exit_block` ends each pass behind that block.  Behind all but the last of `passes` the least certain words are
        hidden again (mask-predict, Ghazvininejad et al. 2019).  `on_show` sees what is shown to each block.
        """
        canvas = self.canvas(source, lengths)
        empty = shown = Shown(canvas.tokens, canvas.hidden, torch.zeros_like(canvas.tokens, dtype=torch.float))
        for number in range(1, passes + 1):
            h, shown = self._one_pass(source, canvas, shown, exit_block or self.decoder.blocks, on_show)
            if number < passes:
                guess = self.back_end.guess(h, self.decoder.vocabulary, canvas, shown)
                shown = reveal_surest(empty, guess, number / passes, up=True)
        return self.back_end.write(
            h, self.decoder.vocabulary, canvas, shown, finish, len(canvas.mask) // len(source.mask)
        )

    def _one_pass(
        self, source: Source, canvas: Canvas, shown: Shown, blocks: int, on_show: Callable[[Shown], None] | None
    ) -> tuple[Tensor, Shown]:
        """The last block's output as the projection sees it, [N, L, h], and what was shown to it."""
        copied = self.copied(source, canvas)
        # as in training: words of an earlier pass stand before the first block only where glancing began there
        fed = shown if self.glance.first == 0 or blocks == 1 else shown._replace(tokens=canvas.tokens)
        h: Tensor | None = None
        for s in range(1, blocks + 1):
            if on_show is not None:
                on_show(fed)
            h = self.step(s, h, fed.tokens, canvas, source, copied)
            if s < blocks:
                shown, fed = self._reveal(s, h, canvas, shown)
        return self.decoder.read(cast(Tensor, h)), shown

    def _reveal(self, s: int, h: Tensor, canvas: Canvas, shown: Shown) -> tuple[Shown, Shown]:
        """What boundary s adds to what is shown, and what the next block is fed: that, or words for what is hidden."""
        if self.keep[s] == 0 and self.feed == "mask":
            return shown, shown
        guess = self.back_end.guess(self.decoder.read(h), self.decoder.vocabulary, canvas, shown)
        shown = reveal_surest(shown, guess, self.keep[s])
        if self.feed == "mask":
            return shown, shown
        tokens, log_p = (torch.where(shown.hidden, *parts) for parts in zip(guess[:2], (shown.tokens, shown.log_p)))
        return shown, shown._replace(tokens=tokens, log_p=log_p)


@dataclass(frozen=True)
class Pupil:
    """A batch of targets being said, and glanced at."""

    translator: GlancingTranslator
    source: Source
    target: Tensor  # [B, M]
    mask: Tensor  # [B, M]
    canvas: Canvas

    @property
    def given(self) -> Tensor:
        """The place of what an empty canvas shows, [B, L]."""
        return self.translator.back_end.given(self.canvas, self.mask)

    def say(self, place: Tensor, reveal: Reveal, graded: bool = True) -> Said:
        """For each block what was shown to it, `place` [B, L], and its reading; `reveal` is asked before each.

        Where nothing is `graded`, only those that are needed: the last, and what blocks feed each other.
        """
        model = self.translator
        copied = model.copied(self.source, self.canvas)
        h: Tensor | None = None
        reading: Reading | None = None
        said: Said = []
        for s in range(1, model.decoder.blocks + 1):
            place = reveal(s - 1, place, reading)
            h = model.step(s, h, self.shown(place, reading), self.canvas, self.source, copied)
            if graded or model.feed == "self" or s == model.decoder.blocks:
                reading = model.back_end.read(
                    model.decoder.read(h), model.decoder.vocabulary, self.target, self.mask, self.canvas, place
                )
                said.append((place, reading))
        return said

    def shown(self, place: Tensor, before: Reading | None) -> Tensor:
        """z [B, L]: true words where they are revealed; elsewhere the mask, or what the block before would say."""
        true = self.target.gather(1, place.clamp(min=0))
        hidden = self.canvas.tokens
        if before is not None and self.translator.feed == "self":
            hidden = torch.where(self.canvas.hidden, before.best, hidden)
        return torch.where(place >= 0, true, hidden)

    def means(self, place: Tensor, reading: Reading) -> dict[str, Mean]:
        """Of the last block: how much of the canvas it was shown, and how many targets do not fit on it."""
        revealed = (place >= 0) & self.canvas.hidden
        return {
            "revealed": Mean(revealed.sum(), self.canvas.hidden.sum()),
            "impossible": Mean(reading.impossible.sum(), torch.ones_like(reading.nll).sum()),
        }


class Showing:
    """What glancing shows of a batch of targets, from boundary to boundary."""

    def __init__(self, pupil: Pupil, keys: Tensor, update: int, earlier: Reading | None):
        """`earlier` is the reading of a first pass, which then says what is wrong; without it each block does."""
        self.pupil, self.keys, self.update = pupil, keys, update
        self.earlier = None if earlier is None else (earlier.best, earlier.align())
        self.owed = torch.zeros_like(keys, dtype=torch.double)

    def __call__(self, s: int, place: Tensor, reading: Reading | None) -> Tensor:
        """`place` [B, L] with what boundary s reveals along the best alignment."""
        glance = self.pupil.translator.glance
        if not glance.shows(s, self.update):
            return place
        best, align = self.earlier or self._said(reading)
        hidden = (align >= 0) & (place < 0)
        wrong = hidden & (best != self.pupil.target.gather(1, align.clamp(min=0)))
        boundary = Boundary(s, hidden, wrong, noise.fold(self.keys, s), self.owed)
        chosen, self.owed = glance(boundary, self.update)
        return torch.where(chosen, align, place)

    def _said(self, reading: Reading | None) -> tuple[Tensor, Tensor]:
        """The likeliest words and the alignment, both [B, L]; no words where nothing has been said yet."""
        if reading is not None:
            return reading.best, reading.align()
        align = self.pupil.translator.back_end.alignment(self.pupil.mask)
        return torch.full_like(align, -1), align


def nothing_more(s: int, place: Tensor, reading: Reading | None) -> Tensor:
    """Shows nothing but what is given."""
    return place


def reveal_surest(shown: Shown, guess: Guess, share: float, up: bool = False) -> Shown:
    """As much more of the guess as makes a `share` of it shown, rounded down, or `up`; what is shown stays."""
    open_ = guess.open.sum(-1).double() * share
    count = ((open_ - 1e-9).ceil() if up else (open_ + 1e-9).floor()).long()
    new = surest(guess.log_p.masked_fill(~shown.hidden, torch.inf), guess.open, count) & shown.hidden
    most = shown.most
    if guess.room is not None:
        most = min(guess.room - int(guess.room * share + 1e-9), guess.room if most is None else most)
    tokens, log_p = torch.where(new, guess.tokens, shown.tokens), torch.where(new, guess.log_p, shown.log_p)
    return Shown(tokens, shown.hidden & ~new, log_p, most)


@contextmanager
def same_dropout(device: torch.device) -> Iterator[None]:
    """What follows draws the random numbers that are drawn in here, so both passes drop the same."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
