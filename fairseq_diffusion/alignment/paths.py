"""Paths through a graph of words: begin and end of sentence, and the vertices in between.

A path 0 = a_0 < a_1 < ... < a_m = last has log-probability

    log P(w_0 | v_0) + sum_i [ log E(a_{i-1} -> a_i) + log P(w_i | v_{a_i}) ].

Every search is a choice of the next vertex at each vertex, made for all of them at once (DA-Transformer, Huang et al.
2022; Viterbi: Shao et al. 2022); the path is then marked in log2 L rounds, without a walk.  A word may repeat the one
before it: the words of both vertices are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import choice, noise
from fairseq_diffusion.registry import Registry, option


class Graph(NamedTuple):
    """B graphs with up to L vertices, n words listed at each; vertex 0 is the begin of the sentence, the last its
    end."""

    links: Tensor  # [B, L, L] log E(i -> j), -inf where there is no link; rows sum to one over i < j < size
    tokens: Tensor  # [B, L, n] likeliest words of each vertex, best first
    log_p: Tensor  # [B, L, n] their log-probabilities
    size: Tensor  # [B] vertices

    @property
    def last(self) -> Tensor:
        """The vertex of the end of the sentence, [B]."""
        return self.size - 1

    def cleaned(self) -> Graph:
        """In fp32, without links backwards or into the padding, whatever is written there."""
        vertex = torch.arange(self.links.shape[1], device=self.links.device)
        real = vertex < self.size[:, None]
        allowed = real[:, None] & (vertex > vertex[:, None])
        links = self.links.float().masked_fill(~allowed, -torch.inf)
        return self._replace(links=links, log_p=self.log_p.float().masked_fill(~real[..., None], 0.0))


class Path(NamedTuple):
    """What a search found, K candidates a graph; a path's log-probability is `log_p.sum(-1)`.

    It is -inf where no links lead to the end; the path then jumps there.
    """

    on: Tensor  # [B, K, L] the vertices on the path, first and last included
    tokens: Tensor  # [B, K, L] the word of each vertex; it means something on the path only
    log_p: Tensor  # [B, K, L] of the link into the vertex and the word there (vertex 0: of its word); 0 off the path


ROUNDS = 13  # enough for graphs of 2^13 vertices, where a program has to be written for any size
PATHS: Registry[Callable[[Graph, SearchOptions, Tensor | None], Path]] = Registry("path search")


@PATHS.register("greedy")
@torch.no_grad()
def greedy(graph: Graph, options: SearchOptions, keys: Tensor | None = None) -> Path:
    """From i to argmax_j log E(i -> j); one candidate."""
    graph = graph.cleaned()
    return walk(graph, graph.links.argmax(-1)[:, None])


@PATHS.register("lookahead")
@torch.no_grad()
def lookahead(graph: Graph, options: SearchOptions, keys: Tensor | None = None) -> Path:
    """From i to argmax_j [log E(i -> j) + beta max_w log P(w | v_j)]; one candidate."""
    graph = graph.cleaned()
    word = graph.log_p[:, None, :, 0].clamp(min=torch.finfo(torch.float).min)  # a weight of 0 is not to meet -inf
    score = graph.links + options.lookahead_weight * word
    return walk(graph, score.argmax(-1)[:, None])


@PATHS.register("viterbi")
@torch.no_grad()
def viterbi(graph: Graph, options: SearchOptions, keys: Tensor | None = None) -> Path:
    """The path of the largest sum_{i=1}^m log E(a_{i-1} -> a_i) / m^length_penalty; one candidate.

    m counts the links, which are as many as the words and the end, or the vertices but the first.
    """
    graph = graph.cleaned()
    return walk(graph, best_steps(graph.links, graph.last, options.length_penalty)[:, None])


@PATHS.register("joint_viterbi")
@torch.no_grad()
def joint_viterbi(graph: Graph, options: SearchOptions, keys: Tensor | None = None) -> Path:
    """The path of the largest sum_{i=1}^m [log E(a_{i-1} -> a_i) + max_w log P(w | v_{a_i})] / m^length_penalty.

    Each of the m terms is a link and the word where it leads; so the last vertex's word counts, the first's does
    not.  One candidate.
    """
    graph = graph.cleaned()
    gain = graph.links + graph.log_p[:, None, :, 0]
    return walk(graph, best_steps(gain, graph.last, options.length_penalty)[:, None])


@PATHS.register("sample")
@torch.no_grad()
def sample(graph: Graph, options: SearchOptions, keys: Tensor | None = None) -> Path:
    """K paths drawn link by link, and at each vertex one of its n listed words, both at `temperature`.

    `log_p` is what the model gives to links and words at temperature 1.  Vertex j draws by the key folded with j, so a
    graph's paths are the same in any batch.
    """
    if keys is None:
        raise ValueError("path search 'sample' draws by random keys [B, K]; pass them as keys")
    graph = graph.cleaned()
    vertex = torch.arange(graph.links.shape[1], device=graph.links.device)
    u = noise.uniform(noise.fold(keys[..., None], vertex), 2)
    following = draw(graph.links, u[..., 0], options.temperature)
    return walk(graph, following, draw(graph.log_p, u[..., 1], options.temperature))


def draw(log_p: Tensor, u: Tensor, temperature: float) -> Tensor:
    """One of N for each u in U(0, 1), by inverse CDF: log_p [B, L, N], u [B, K, L] -> [B, K, L]; all -inf gives 0."""
    cdf = (log_p.double() / temperature).softmax(-1).nan_to_num(0.0).cumsum(-1)
    return torch.searchsorted(cdf, u.mT.contiguous() * cdf[..., -1:]).mT


def best_steps(gain: Tensor, last: Tensor, length_penalty: float) -> Tensor:
    """The next vertices [B, L] on the path of the largest sum of m gains / m^length_penalty, of any m.

    delta_k(j) = max_i [delta_{k-1}(i) + gain(i, j)] is the best path from 0 to j of k links; gain [B, L, L], last [B].
    """
    into, vertices, at = gain.mT.contiguous(), gain.shape[1], last[:, None]
    delta = [F.pad(gain.new_zeros(len(gain), 1), (0, vertices - 1), value=-torch.inf)]
    for k in range(1, vertices):  # k - 1 links lead to vertex k - 1 or beyond, so only those are looked at
        best = (delta[-1][:, None, k - 1 :] + into[:, k:, k - 1 :]).amax(-1)
        delta.append(F.pad(best, (k, 0), value=-torch.inf))
    total = torch.cat([d.gather(1, at) for d in delta[1:]], 1)
    m = 1 + (total / torch.arange(1, vertices, device=gain.device) ** length_penalty).argmax(-1, keepdim=True)
    following = at.repeat(1, vertices)
    for k in range(vertices - 1, 0, -1):  # back along the path, once k has come down to its length
        best = (delta[k - 1] + entries(into, at)[:, 0]).argmax(-1, keepdim=True)
        came = torch.where(k <= m, best, at)
        following.scatter_(1, came, at)
        at = came
    return following


def walk(graph: Graph, following: Tensor, word: Tensor | None = None) -> Path:
    """The path from vertex 0 along `following` [B, K, L]; a vertex that has nowhere to go, goes to the last.

    Vertex j has the word at place `word` [B, K, L] of its list, or the first.
    """
    last = graph.last[:, None, None]
    vertex = torch.arange(following.shape[-1], device=following.device)
    following = torch.where(following > vertex, following, following.shape[-1]).clamp(max=last)
    word = torch.zeros_like(following) if word is None else word
    on = reached(following)
    link = torch.where(on & (vertex != last), in_rows(graph.links, following), 0.0)
    log_p = torch.zeros_like(link).scatter_add(-1, following, link) + in_rows(graph.log_p, word)
    return Path(on, in_rows(graph.tokens, word), torch.where(on, log_p, 0.0))


def reached(following: Tensor) -> Tensor:
    """Which vertices are on the way from vertex 0 along `following` [B, K, L] -> [B, K, L].

    By doubling: after r rounds the first 2^r vertices are marked, and every pointer leads 2^r further.
    """
    on = F.pad(torch.ones_like(following[..., :1]), (0, following.shape[-1] - 1))
    for _ in range(ROUNDS if choice.exporting() else (following.shape[-1] - 1).bit_length()):
        on = on.scatter_add(-1, following, on)
        following = following.gather(-1, following)
    return on.bool()


def in_rows(table: Tensor, index: Tensor) -> Tensor:
    """What stands at `index` [B, K, L] in the rows of `table` [B, L, N] -> [B, K, L]."""
    return table.gather(-1, index.mT).mT


def entries(x: Tensor, index: Tensor) -> Tensor:
    """The entries at `index` [B, K] of x [B, N, ...] -> [B, K, ...]."""
    return x.gather(1, index.view(*index.shape, *[1] * (x.dim() - 2)).expand(*index.shape, *x.shape[2:]))


BEAM = "beam"  # beam search over words, in beam.py
LISTS = ("sample", BEAM)  # searches that look at more than the most probable word of a vertex
SEARCHES = (*PATHS, BEAM)

# Which searches read an option.
READ_BY = {
    "lookahead_weight": ("lookahead",),
    "temperature": ("sample",),
    "vertex_tokens": LISTS,
    "beam": (BEAM,),
    "length_penalty": ("viterbi", "joint_viterbi", BEAM),
}


@dataclass(frozen=True)
class SearchOptions:
    """How words are read off a canvas; an alignment takes what applies to it."""

    path_search: str = option(
        "lookahead",
        "search for the best path of words in a graph; beam: also for CTC's best words",
        choices=SEARCHES,
        system=True,
    )
    lookahead_weight: float = option(
        1.0, "weight of a word's log-probability beside the link's in path search lookahead"
    )
    vertex_tokens: int = option(
        5, "words considered at each vertex, or position of CTC, by path searches sample and beam"
    )
    blank_penalty: float = option(
        0.0, "CTC: subtract this from the log-probability of blanks where the best symbols are read, for more words"
    )
    temperature: float = option(1.0, "one-pass: divide the log-probabilities of path search sample by it")
    beam: int = option(5, generation="beam")
    length_penalty: float = option(1.0, generation="lenpen")

    def __post_init__(self) -> None:
        if self.vertex_tokens < 1:
            raise UserError(f"--vertex-tokens is {self.vertex_tokens}; a vertex has 1 word or more")
        if self.beam < 1:
            raise UserError(f"--beam is {self.beam}; beam search keeps 1 hypothesis or more")
        if not self.temperature > 0:
            raise UserError(f"--temperature is {self.temperature}; pass a number above 0")
