"""What a back end is: a canvas to write on, a likelihood of targets on it, and a way to read it.

A target [B, M] is <s> y_1 ... y_m </s>.  `place` [B, L] says of each position of a canvas which column of the target it
shows, -1 for one that is hidden: a model is told it, or the best alignment finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_diffusion.kernels.log_probs import Said, linear_log_probs
from fairseq_diffusion.kernels.rounding import round_to_rows
from fairseq_diffusion.registry import Registry


class Symbols(NamedTuple):
    """Numbers of the special symbols."""

    bos: int
    pad: int
    eos: int
    mask: int


class Canvas(NamedTuple):
    """N empty translations, of at most L positions."""

    tokens: Tensor  # [N, L], the mask where something is to be written
    mask: Tensor  # [N, L], true at real positions
    hidden: Tensor  # [N, L], true at those to be written


class Shown(NamedTuple):
    """What is on a canvas."""

    tokens: Tensor  # [N, L]
    hidden: Tensor  # [N, L], true where nothing is revealed yet
    log_p: Tensor  # [N, L], of the words when they were revealed; 0 elsewhere
    most: int | None = None  # of a row's positions, so many are hidden at most; None: perhaps all


class Guess(NamedTuple):
    """What a block would write."""

    tokens: Tensor  # [N, L]
    log_p: Tensor  # [N, L]
    open: Tensor  # [N, L], the positions that say something, revealed or not; the ends aside
    room: int | None = None  # of a row's positions, so many are open at most; None: the host does not know


class Written(NamedTuple):
    """K finished translations of each of S sentences, their words among L positions.

    A search that finds fewer sentences than it was asked for repeats its best.
    """

    tokens: Tensor  # [S, K, L]
    log_p: Tensor  # [S, K, L]
    said: Tensor  # [S, K, L], true at words
    end_log_p: Tensor  # [S, K], of the end, and of all that is no word


@dataclass(frozen=True)
class Finish:
    """How a canvas is read in the end; a back end takes what applies to it."""

    search: str = "lookahead"
    lookahead_weight: float = 1.0
    length_penalty: float = 1.0
    temperature: float = 1.0
    vertex_tokens: int = 5
    beam: int = 5
    longest: int = 256
    drop_repeats: bool = False
    keys: Tensor | None = None  # [S, K]


@dataclass(frozen=True)
class Reading:
    """What a block's output says of a target."""

    best: Tensor  # [B, L], the likeliest word at each position
    nll: Tensor  # [B], of what is not shown
    due: Tensor  # [B], what that sum is to be divided by for a mean, at least 1
    impossible: Tensor  # [B], targets that do not fit on the canvas: nll 0
    align: Callable[[], Tensor]  # place [B, L] on the best alignment


class BackEnd(nn.Module):
    """A canvas of some size for each sentence, and what its positions mean."""

    predicts_length = False  # a length must be chosen before anything is written
    aligned = False  # which word goes where is known before anything is written
    has_ends = True  # <s> and </s> stand at the ends of the canvas, and are given
    unsaid: tuple[str, ...] = ("bos", "pad", "eos")  # symbols that are never written
    banned: Tensor

    def __init__(self, symbols: Symbols, upsample: float):
        super().__init__()
        self.symbols, self.upsample = symbols, upsample
        banned = torch.tensor([getattr(symbols, name) for name in self.unsaid])
        self.register_buffer("banned", banned, persistent=False)

    def sizes(self, source_mask: Tensor) -> tuple[Tensor, int]:
        """Positions for each source, [S, 1], and a width that all have room in; source_mask [S, T] is true at words."""
        sizes = (source_mask.sum(-1, keepdim=True).double() * self.upsample + 1e-9).long()
        return sizes.clamp(min=2), max(2, int(source_mask.shape[1] * self.upsample + 1e-9))

    def canvas(self, sizes: Tensor, width: int) -> Canvas:
        """Empty, for sizes [S, K] -> [S K, width]."""
        bos, pad, eos, hidden = self.symbols
        place, sizes = torch.arange(width, device=sizes.device), sizes.flatten()[:, None]
        mask = place < sizes
        tokens = torch.where(mask, hidden, pad)
        if self.has_ends:
            tokens = torch.where(place == 0, bos, torch.where(place == sizes - 1, eos, tokens))
        return Canvas(tokens, mask, tokens == hidden)

    def given(self, canvas: Canvas, mask: Tensor) -> Tensor:
        """The place [B, L] of what an empty canvas shows of targets of which mask [B, M] is real."""
        ends = torch.where(canvas.tokens == self.symbols.eos, mask.sum(-1, keepdim=True) - 1, -1)
        return torch.where(canvas.tokens == self.symbols.bos, 0, ends)

    def alignment(self, mask: Tensor) -> Tensor:
        """The place [B, L] of every word of targets of which mask [B, M] is real, where nobody has to find it."""
        raise NotImplementedError

    def read(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, place: Tensor) -> Reading:
        """h [B, L, h] by the projection `words` [V, h], of target [B, M] with mask [B, M], `place` [B, L] shown."""
        raise NotImplementedError

    def guess(self, h: Tensor, words: Tensor, canvas: Canvas, shown: Shown) -> Guess:
        """What h [N, L, h] would write beside what is shown: at each position its likeliest word, that shown stays.

        The projection is most of the work, so only as many positions go through it as may be hidden.
        """
        at = (~shown.hidden).long().argsort(dim=-1, stable=True)[:, : shown.most]
        rows = h.gather(1, at[..., None].expand(-1, -1, h.shape[-1]))
        tokens, log_p = (part.view(at.shape) for part in round_to_rows(rows.flatten(0, 1), words, self.banned))
        hidden = shown.hidden.gather(1, at)
        tokens = torch.where(hidden, tokens, shown.tokens.gather(1, at))
        log_p = torch.where(hidden, log_p, shown.log_p.gather(1, at))
        room = h.shape[1] - 2 * self.has_ends
        return Guess(shown.tokens.scatter(1, at, tokens), shown.log_p.scatter(1, at, log_p), canvas.hidden, room)

    def write(self, h: Tensor, words: Tensor, canvas: Canvas, shown: Shown, finish: Finish, candidates: int) -> Written:
        """The translations that h [S K, L, h] says, K = `candidates`."""
        raise NotImplementedError


def said_of(h: Tensor, words: Tensor, index: Tensor) -> Said:
    """Log-probabilities of the words index [B, L, M] at each position of h [B, L, h]; all of shape [B, L, ...]."""
    said = linear_log_probs(h.flatten(0, 1), words, index.flatten(0, 1))
    return Said(*(part.view(*h.shape[:2], *part.shape[1:]) for part in said))


def by_sentence(tokens: Tensor, log_p: Tensor, said: Tensor, end_log_p: Tensor, candidates: int) -> Written:
    """All [S K, ...] as what is written by the K = `candidates` of each sentence."""
    shape = -1, candidates, tokens.shape[-1]
    return Written(tokens.view(shape), log_p.view(shape), said.view(shape), end_log_p.view(shape[:2]))


def packed(tokens: Tensor, log_p: Tensor, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three [..., L] with what is said moved to the front."""
    order = (~said).long().argsort(dim=-1, stable=True)
    return tokens.gather(-1, order), log_p.gather(-1, order), said.gather(-1, order)


def without_repeats(written: Written) -> Written:
    """What is written, words side by side, but for those that repeat their left neighbour; the end answers for them."""
    tokens, log_p, said, end_log_p = written
    repeats = torch.zeros_like(said)
    repeats[..., 1:] = (tokens[..., 1:] == tokens[..., :-1]) & said[..., 1:] & said[..., :-1]
    return Written(tokens, log_p, said & ~repeats, end_log_p + (log_p * repeats).sum(-1))


BACK_ENDS: Registry[Any] = Registry("back end")
