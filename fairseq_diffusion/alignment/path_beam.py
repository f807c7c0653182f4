"""Beam search over the sentences of a graph, the paths summed out.

Many paths have the same words.  A hypothesis y_1..t carries alpha_t(j) = P(the words so far are y_1..t, and the path is
at vertex j):

    alpha_{t+1}(j) = P(y_{t+1} | v_j) sum_i alpha_t(i) E(i -> j),
    P(Y) = P(end | last) sum_i alpha_|y|(i) E(i -> last).

Links and words are distributions, so sum_j alpha_t(j) is the probability of the prefix: hypotheses compare as those of
an autoregressive model do, and no two of them are the same.  alpha is kept normalised, beside log sum_j alpha_t(j), in
fp64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_diffusion.alignment.paths import Graph, entries

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


class Tables(NamedTuple):
    """A graph's probabilities in fp64, and the list of the words that its vertices list (U = L n holds any)."""

    links: Tensor  # [B, L, L] E(i -> j), none to the last vertex
    ending: Tensor  # [B, L, 1] E(i -> last) P(end | last)
    p: Tensor  # [B, L, n] of the words listed
    number: Tensor  # [B, L, n] which word of the list each is
    words: Tensor  # [B, U]


class Beam(NamedTuple):
    """The prefixes that are still growing."""

    prefixes: Sentences
    alpha: Tensor  # [B, K, L] P(standing at j | prefix)


@torch.no_grad()
def beam_search(graph: Graph, width: int, max_steps: int, length_penalty: float = 1.0) -> Sentences:
    """The K = `width` sentences found with the largest log P(Y) / |Y|^length_penalty, |Y| the words and the end.

    A vertex has the words listed for it and no others, so P(Y) is exact if all are listed, and a lower bound if only
    the likeliest are.  The last vertex has the first of its list, which is the end.  There are at most `max_steps`
    words; T is that, or the vertices between first and last if these are fewer.
    """
    tables = tabulate(graph.cleaned())
    steps = min(max_steps, graph.links.shape[1] - 2)
    beam = start(tables, width, steps)
    found = beam.prefixes._replace(log_p=torch.full_like(beam.prefixes.log_p, -torch.inf))
    for t in range(steps + 1):
        found = merged(found, ended(beam, tables, t)).best(width, length_penalty)
        if t == steps or (t % CHECK_EVERY == CHECK_EVERY - 1 and settled(found, beam, steps, length_penalty)):
            break
        beam = extended(beam, tables, t)
    return filled(found, beam.prefixes)


def tabulate(graph: Graph) -> Tables:
    """What a search looks up, from a cleaned graph."""
    vertex = torch.arange(graph.links.shape[1], device=graph.links.device)
    last = graph.last[:, None, None]
    links, p = graph.links.double().exp(), graph.log_p.double().exp()
    into_last = links.gather(2, last.expand(-1, links.shape[1], 1))
    ending = into_last * p[..., :1].gather(1, last)
    padding, at_the_end = (vertex > last[..., 0])[..., None], torch.iinfo(graph.tokens.dtype).max
    number, words = numbered(graph.tokens.masked_fill(padding, at_the_end))
    return Tables(links.masked_fill(vertex == last, 0.0), ending, p, number, words)


def numbered(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct words of each graph in rising order [B, L n], and which of them each of the tokens [B, L, n] is."""
    rising, order = tokens.flatten(1).sort(-1)
    run = F.pad((rising.diff() != 0).long().cumsum(-1), (1, 0))
    number = torch.zeros_like(order).scatter(1, order, run)
    return number.view_as(tokens), torch.zeros_like(rising).scatter(1, run, rising)


def start(tables: Tables, width: int, steps: int) -> Beam:
    """The empty prefix, at vertex 0; the other places of the beam are void."""
    graphs, vertices = tables.ending.shape[:2]
    tokens = tables.words.new_zeros(graphs, width, steps)
    log_p = F.pad(tables.links.new_zeros(graphs, 1), (0, width - 1), value=-torch.inf)
    prefixes = Sentences(tokens, tokens.new_zeros(graphs, width), log_p, log_p.new_zeros(graphs, width, steps + 1))
    return Beam(prefixes, F.pad(log_p.new_ones(graphs, width, 1), (0, vertices - 1)))


def ended(beam: Beam, tables: Tables, t: int) -> Sentences:
    """The prefixes of t words with the end behind them."""
    end = (beam.alpha @ tables.ending)[..., 0].log()
    word_log_p = beam.prefixes.word_log_p.clone()
    word_log_p[..., t] = end
    return beam.prefixes._replace(log_p=beam.prefixes.log_p + end, word_log_p=word_log_p)


def extended(beam: Beam, tables: Tables, t: int) -> Beam:
    """The best K = width prefixes of t + 1 words, of all that add one word to those of t."""
    prefixes, ahead = beam.prefixes, beam.alpha @ tables.links  # [B, K, L] P(going on to j | prefix)
    slots = (ahead[..., None] * tables.p[:, None]).flatten(2)
    number, width = tables.number.flatten(1)[:, None].expand_as(slots), ahead.shape[1]
    mass = torch.zeros_like(slots).scatter_add(-1, number, slots).mT  # [B, U, K] P(word | prefix)
    chosen = first((prefixes.log_p[:, None] + mass.log()).flatten(1), width)
    word, parent = chosen // width, chosen % width
    p_word = mass.flatten(1).gather(1, chosen)
    emission = torch.where(tables.number[:, None] == word[..., None, None], tables.p[:, None], 0.0).sum(-1)
    alpha = entries(ahead, parent) * emission / p_word.clamp(min=torch.finfo(p_word.dtype).tiny)[..., None]
    prefixes = prefixes.select(parent)
    prefixes.tokens[..., t] = tables.words.gather(1, word)
    prefixes.word_log_p[..., t] = p_word.log()
    return Beam(prefixes._replace(sizes=prefixes.sizes + 1, log_p=prefixes.log_p + p_word.log()), alpha)


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
