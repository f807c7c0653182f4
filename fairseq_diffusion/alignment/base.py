"""The contract of an output alignment: how decoder positions map to target tokens.

A target [B, M] is <s> y_1 ... y_m </s>.  `index` [B, L] is, for each position of a canvas, the column of the target
that it shows, -1 where it is hidden: it is given to the model, or found by the best alignment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_diffusion.alignment.beam import Sentences
from fairseq_diffusion.alignment.paths import SearchOptions
from fairseq_diffusion.alignment.template import Template
from fairseq_diffusion.kernels.log_probs import WordScores, linear_log_probs
from fairseq_diffusion.kernels.rounding import round_to_rows
from fairseq_diffusion.registry import Registry


class Symbols(NamedTuple):
    """Numbers of the special symbols."""

    bos: int
    pad: int
    eos: int
    mask: int  # -1 in a dictionary without one
    unk: int = 3  # as fairseq numbers it
    tags: tuple[int, ...] = ()  # that say into which language to translate, and are never part of a translation


class Canvas(NamedTuple):
    """N empty translations, of at most L positions."""

    tokens: Tensor  # [N, L], the mask symbol where a word is to be predicted
    mask: Tensor  # [N, L], true at real positions
    hidden: Tensor  # [N, L], true where a word is to be predicted
    template: Template | None = None  # N templates that the words must contain


class Revealed(NamedTuple):
    """What stands on a canvas."""

    tokens: Tensor  # [N, L]
    hidden: Tensor  # [N, L], true where nothing is revealed yet
    log_p: Tensor  # [N, L], of the words when they were revealed; 0 elsewhere
    most_hidden: int | None = None  # of a row's positions, so many are hidden at most; None: perhaps all


class Reading(NamedTuple):
    """How translations are read off canvases in the end."""

    options: SearchOptions
    candidates: int  # K canvases of each sentence
    keys: Tensor | None = None  # [S, K], for searches that draw


class Guess(NamedTuple):
    """What a block predicts."""

    tokens: Tensor  # [N, L]
    log_p: Tensor  # [N, L]
    predicted: Tensor  # [N, L], the positions that predict a word, revealed or not; the ends aside
    most_predicted: int | None = None  # of a row's positions, so many at most; None: the host does not know


class Words(NamedTuple):
    """What is read off the positions of K candidates of each of S sentences.

    A search that finds fewer sentences than it was asked for repeats its best.
    """

    tokens: Tensor  # [S, K, L]
    log_p: Tensor  # [S, K, L]
    mask: Tensor  # [S, K, L], true at words
    end_log_p: Tensor  # [S, K], of the end of the sentence, and of all that is no word

    @classmethod
    def of(cls, found: Sentences) -> Words:
        """What a beam search found."""
        mask = torch.arange(found.tokens.shape[-1], device=found.tokens.device) < found.sizes[..., None]
        end = found.word_log_p.gather(-1, found.sizes[..., None])[..., 0]
        return cls(found.tokens, found.word_log_p[..., :-1], mask, end)


@dataclass(frozen=True)
class Scored:
    """A block's likelihood of a target, and its own prediction."""

    best: Tensor  # [B, L], the most probable word at each position
    nll: Tensor  # [B], of what is not shown
    count: Tensor  # [B], what that sum is to be divided by for a mean, at least 1
    impossible: Tensor  # [B], targets that do not fit on the canvas: nll 0
    log_p: Callable[[], Tensor]  # [B] in fp64, of what is not shown, without smoothing; -inf where it does not fit
    align: Callable[[], Tensor]  # index [B, L] on the best alignment


class Alignment(nn.Module, ABC):
    """A canvas of some size for each sentence, and what its positions mean."""

    name: str  # the one users type
    predicts_length = False  # a length must be chosen before anything is decoded
    aligned = False  # where each word goes is known before anything is decoded
    searches: tuple[str, ...] = ()  # ways to find the best words, by name, where there are several
    has_ends = True  # <s> and </s> stand at the ends of the canvas, and are given
    never_predicted: tuple[str, ...] = ("bos", "pad", "eos")  # symbols
    banned: Tensor

    def __init__(self, symbols: Symbols, upsample: float, longest: int = 256):
        """`upsample` is the canvas' positions for each token of the source, `longest` the longest translation."""
        super().__init__()
        self.symbols, self.upsample, self.longest = symbols, upsample, longest
        self.ratio = Fraction(upsample).limit_denominator(1000)
        banned = torch.tensor([*(getattr(symbols, name) for name in self.never_predicted), *symbols.tags])
        self.register_buffer("banned", banned, persistent=False)

    def sizes(self, source_mask: Tensor) -> tuple[Tensor, int]:
        """Positions for each source, [S, 1], and a width that all have room in; source_mask [S, T] is true at words."""
        positions, tokens = self.ratio.as_integer_ratio()
        sizes = source_mask.sum(-1, keepdim=True) * positions // tokens
        return sizes.clamp(min=2), max(2, source_mask.shape[1] * positions // tokens)

    def canvas(self, sizes: Tensor, width: int) -> Canvas:
        """Empty, for sizes [S, K] -> [S K, width]."""
        bos, pad, eos, hidden = self.symbols[:4]
        index, sizes = torch.arange(width, device=sizes.device), sizes.flatten()[:, None]
        mask = index < sizes
        tokens = torch.where(mask, hidden, pad)
        if self.has_ends:
            tokens = torch.where(index == 0, bos, torch.where(index == sizes - 1, eos, tokens))
        return Canvas(tokens, mask, tokens == hidden)

    def given(self, canvas: Canvas, mask: Tensor) -> Tensor:
        """The index [B, L] of what an empty canvas shows of targets of which mask [B, M] is real."""
        ends = torch.where(canvas.tokens == self.symbols.eos, mask.sum(-1, keepdim=True) - 1, -1)
        return torch.where(canvas.tokens == self.symbols.bos, 0, ends)

    def may_show(self, index: Tensor) -> Tensor:
        """Where an alignment, index [B, L], has something that may be revealed."""
        return index >= 0

    def known_index(self, mask: Tensor) -> Tensor:
        """The index [B, L] of every word of targets of which mask [B, M] is real, where `aligned` says that it is known
        beforehand; the builder refuses what would need it elsewhere."""
        raise NotImplementedError(f"{self.name} has no alignment before a pass")

    def room_for(self, template: Template) -> Tensor:
        """Positions that the smallest canvas with these templates has, [S]."""
        return template.size

    def placed(self, h: Tensor, words: Tensor, canvas: Canvas, empty: Revealed) -> Revealed:
        """An empty canvas with its template revealed, where that is done by a pass h [N, L, h] before all others;
        elsewhere every guess contains the template."""
        return empty

    @abstractmethod
    def score(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, index: Tensor) -> Scored:
        """h [B, L, h] by the projection `words` [V, h], of target [B, M] with mask [B, M], `index` [B, L] revealed."""

    def guess(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed) -> Guess:
        """What h [N, L, h] predicts beside what is revealed: at each position its most probable word.

        The projection is most of the work, so only as many positions go through it as may be hidden.
        """
        at = (~revealed.hidden).long().argsort(dim=-1, stable=True)[:, : revealed.most_hidden]
        rows = h.gather(1, at[..., None].expand(-1, -1, h.shape[-1]))
        tokens, log_p = (part.view(at.shape) for part in round_to_rows(rows.flatten(0, 1), words, self.banned))
        hidden = revealed.hidden.gather(1, at)
        tokens = torch.where(hidden, tokens, revealed.tokens.gather(1, at))
        log_p = torch.where(hidden, log_p, revealed.log_p.gather(1, at))
        most = h.shape[1] - 2 * self.has_ends
        return Guess(revealed.tokens.scatter(1, at, tokens), revealed.log_p.scatter(1, at, log_p), canvas.hidden, most)

    @abstractmethod
    def words(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed, how: Reading) -> Words:
        """The translations that h [S K, L, h] predicts by the projection `words` [V, h]."""


def word_scores(h: Tensor, words: Tensor, index: Tensor) -> WordScores:
    """Log-probabilities of the words index [B, L, M] at each position of h [B, L, h]; all of shape [B, L, ...]."""
    scores = linear_log_probs(h.flatten(0, 1), words, index.flatten(0, 1))
    return WordScores(*(part.view(*h.shape[:2], *part.shape[1:]) for part in scores))


def fitting(log_p: Tensor, impossible: Tensor) -> Tensor:
    """log_p [B], -inf for the targets that do not fit, `impossible` [B]."""
    return log_p.masked_fill(impossible, -torch.inf)


def by_sentence(tokens: Tensor, log_p: Tensor, mask: Tensor, end_log_p: Tensor, candidates: int) -> Words:
    """All [S K, ...] as words of the K = `candidates` of each sentence."""
    shape = -1, candidates, tokens.shape[-1]
    return Words(tokens.view(shape), log_p.view(shape), mask.view(shape), end_log_p.view(shape[:2]))


def side_by_side(words: Words) -> Words:
    """The words moved together, in their order."""
    order = (~words.mask).long().argsort(dim=-1, stable=True)
    tokens, log_p, mask = (part.gather(-1, order) for part in words[:3])
    return Words(tokens, log_p, mask, words.end_log_p)


def without_repeats(words: Words) -> Words:
    """Without those that repeat their left neighbour; their log-probability goes to the end.  Words stand side by
    side."""
    tokens, log_p, mask, end_log_p = words
    repeats = torch.zeros_like(mask)
    repeats[..., 1:] = (tokens[..., 1:] == tokens[..., :-1]) & mask[..., 1:] & mask[..., :-1]
    return Words(tokens, log_p, mask & ~repeats, end_log_p + (log_p * repeats).sum(-1))


ALIGNMENTS: Registry[Any] = Registry("alignment")
