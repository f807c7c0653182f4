"""Beam search over sentences, with all ways in which a canvas reads as them summed out.

Many paths of a graph, and many alignments of CTC, have the same words.  A hypothesis y_1..t carries alpha_t, over the
places where its last word may stand, kept normalised beside log P(the words so far are y_1..t), in fp64.  So hypotheses
compare as those of an autoregressive model do, and no two of them are the same.  What the places are, and how a word is
added, is the canvas' own: a graph's in path_beam, CTC's in ctc_beam.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_diffusion.alignment.paths import entries

CHECK_EVERY = 8  # the host asks the device whether all is settled every so many steps, and not at each
TIE = 1e-12  # what each place further back costs, so that of scores that are equal in fp32 the first one wins


class Sentences(NamedTuple):
    """K candidates a graph, best first; begin and end of sentence are left out of tokens and sizes.

    Where fewer than K were found the rest are copies of the best, and have log_p -inf.  Where none came to its end in T
    words, the copies are of the best prefix, cut.
    """

    tokens: Tensor  # [B, K, T], 0 from the size on
    sizes: Tensor  # [B, K] words
    log_p: Tensor  # [B, K] log P(Y), end included
    word_log_p: Tensor  # [B, K, T + 1] log P(y_t | y_<t); the end's at position `size`, 0 beyond

    def select(self, index: Tensor) -> Sentences:
        """The candidates at `index` [B, K'] of each graph."""
        return Sentences(*(entries(x, index) for x in self))

    def best(self, count: int, length_penalty: float) -> Sentences:
        """The `count` with the largest log P(Y) / |Y|^length_penalty."""
        return self.select(first(self.log_p / (self.sizes + 1.0) ** length_penalty, count))


@dataclass(frozen=True)
class Places(ABC):
    """The places on B canvases where a word may stand, each with n words listed, and no others are possible there."""

    p: Tensor  # [B, L, n] of the words listed, fp64
    number: Tensor  # [B, L, n] which word of the canvas' list each is
    words: Tensor  # [B, U], the list, in rising order (U = L n holds any)

    @property
    @abstractmethod
    def most(self) -> int:
        """Words that a sentence can have."""

    @abstractmethod
    def start(self) -> Tensor:
        """alpha [B, ...] of the empty prefix."""

    @abstractmethod
    def end(self, alpha: Tensor) -> Tensor:
        """P(no more words | prefix) [B, K]."""

    @abstractmethod
    def reach(self, alpha: Tensor, last: Tensor) -> Tensor:
        """P(the next word stands here | prefix), of any word [B, K, L, 1] or each one listed [B, K, L, n], but for the
        word's own probability; last [B, K] is the prefix' last word in the list, -1 if it has none."""

    @abstractmethod
    def step(self, alpha: Tensor, repeats: Tensor, emission: Tensor) -> Tensor:
        """alpha behind one more word, times the word's probability; `repeats` [B, K] says whether it is the last one
        again, emission [B, K, L] is its probability at each place."""


class Beam(NamedTuple):
    """The prefixes that are still growing."""

    prefixes: Sentences
    last: Tensor  # [B, K] their last words in the list, -1 where there is none
    alpha: Tensor  # [B, K, ...] P(where the last word stands | prefix)


@torch.no_grad()
def beam_search(places: Places, width: int, max_steps: int, length_penalty: float = 1.0) -> Sentences:
    """The K = `width` sentences found with the largest log P(Y) / |Y|^length_penalty, |Y| the words and the end.

    P(Y) is exact if all words are listed everywhere, and a lower bound if only the likeliest are.  There are at most T
    words: `max_steps`, or as many as the places hold if these are fewer.
    """
    steps = min(max_steps, places.most)
    beam = start(places, width, steps)
    found = beam.prefixes._replace(log_p=torch.full_like(beam.prefixes.log_p, -torch.inf))
    for t in range(steps + 1):
        found = merged(found, ended(beam, places, t)).best(width, length_penalty)
        if t == steps or (t % CHECK_EVERY == CHECK_EVERY - 1 and settled(found, beam, steps, length_penalty)):
            break
        beam = extended(beam, places, t)
    return filled(found, beam.prefixes)


def numbered(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct words of each canvas in rising order [B, L n], and which of them each of the tokens [B, L, n] is."""
    rising, order = tokens.flatten(1).sort(-1)
    run = F.pad((rising.diff() != 0).long().cumsum(-1), (1, 0))
    number = torch.zeros_like(order).scatter(1, order, run)
    return number.view_as(tokens), torch.zeros_like(rising).scatter(1, run, rising)


def start(places: Places, width: int, steps: int) -> Beam:
    """The empty prefix; the other places of the beam are void."""
    alpha = places.start()
    tokens = places.words.new_zeros(len(alpha), width, steps)
    log_p = F.pad(alpha.new_zeros(len(alpha), 1), (0, width - 1), value=-torch.inf)
    prefixes = Sentences(tokens, tokens.new_zeros(log_p.shape), log_p, log_p.new_zeros(*log_p.shape, steps + 1))
    alpha = alpha[:, None].expand(-1, width, *alpha.shape[1:])
    return Beam(prefixes, torch.full_like(prefixes.sizes, -1), alpha)


def ended(beam: Beam, places: Places, t: int) -> Sentences:
    """The prefixes of t words with the end behind them."""
    end = places.end(beam.alpha).log()
    word_log_p = beam.prefixes.word_log_p.clone()
    word_log_p[..., t] = end
    return beam.prefixes._replace(log_p=beam.prefixes.log_p + end, word_log_p=word_log_p)


def extended(beam: Beam, places: Places, t: int) -> Beam:
    """The best K = width prefixes of t + 1 words, of all that add one word to those of t."""
    prefixes, last = beam.prefixes, beam.last
    slots = (places.reach(beam.alpha, last) * places.p[:, None]).flatten(2)
    number, width = places.number.flatten(1)[:, None].expand_as(slots), slots.shape[1]
    mass = torch.zeros_like(slots).scatter_add(-1, number, slots).mT  # [B, U, K] P(word | prefix)
    chosen = first((prefixes.log_p[:, None] + mass.log()).flatten(1), width)
    word, parent = chosen // width, chosen % width
    p_word = mass.flatten(1).gather(1, chosen)
    emission = torch.where(places.number[:, None] == word[..., None, None], places.p[:, None], 0.0).sum(-1)
    alpha = places.step(entries(beam.alpha, parent), entries(last, parent) == word, emission)
    alpha = alpha / p_word.clamp(min=torch.finfo(p_word.dtype).tiny).view(*p_word.shape, *[1] * (alpha.dim() - 2))
    prefixes = prefixes.select(parent)
    prefixes.tokens[..., t] = places.words.gather(1, word)
    prefixes.word_log_p[..., t] = p_word.log()
    prefixes = prefixes._replace(sizes=prefixes.sizes + 1, log_p=prefixes.log_p + p_word.log())
    return Beam(prefixes, word, alpha)


def settled(found: Sentences, beam: Beam, steps: int, length_penalty: float) -> bool:
    """Can no prefix come to more than the worst found? Its log P only falls, and |Y| is at most steps + 1."""
    worst = found.log_p[:, -1] / (found.sizes[:, -1] + 1.0) ** length_penalty
    reach = beam.prefixes.log_p.amax(-1) / max(1.0, (steps + 1.0) ** length_penalty)
    return bool((worst >= reach).all())


def filled(found: Sentences, cut: Sentences) -> Sentences:
    """Copies of the best in the void places, or of the first prefix `cut` where nothing was found."""
    width, real = found.log_p.shape[1], found.log_p > -torch.inf
    best = torch.where(real[:, :1], 0, width)
    index = torch.where(real, torch.arange(width, device=real.device), best)
    result = merged(found, cut).select(index)
    return result._replace(
        log_p=torch.where(real, result.log_p, -torch.inf).float(), word_log_p=result.word_log_p.float()
    )


def merged(a: Sentences, b: Sentences) -> Sentences:
    """All candidates of both."""
    return Sentences(*(torch.cat(pair, 1) for pair in zip(a, b)))


def first(score: Tensor, count: int) -> Tensor:
    """Places [B, count] of the best of `score` [B, N], best first; of equals, the one that stands first."""
    place = torch.arange(score.shape[-1], device=score.device)
    return (score.float().double() - TIE * place).topk(count).indices
