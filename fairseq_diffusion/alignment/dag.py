"""A directed acyclic graph of words: a canvas several times as long as the source, through which each path from its
first vertex to its last says a sentence (Huang et al. 2022, DA-Transformer).

    P(y | x) = sum_A prod_t P(y_t | v_(a_t)) E(a_(t-1) -> a_t),   a_1 < ... < a_M the first vertex to the last
"""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import (
    BACK_ENDS,
    BackEnd,
    Canvas,
    Finish,
    Guess,
    Reading,
    Shown,
    Symbols,
    Written,
    packed,
    said_of,
    without_repeats,
)
from fairseq_diffusion.alignment.path_beam import beam_search
from fairseq_diffusion.alignment.paths import PATHS, Graph, Search
from fairseq_diffusion.kernels.dag import dag_best_path, dag_log_likelihood
from fairseq_diffusion.kernels.rounding import top_rows
from fairseq_diffusion.network.links import Links

BEAM = "beam"
SEARCHES = (*PATHS, BEAM)
LISTS = ("sample", BEAM)  # searches that look at more than the likeliest word of a vertex


@BACK_ENDS.register("dag")
class DAGBackEnd(BackEnd):
    """All paths summed up; a revealed word forces them through its vertex."""

    def __init__(self, symbols: Symbols, upsample: float, links: Links):
        super().__init__(symbols, upsample)
        self.links = links

    def read(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, place: Tensor) -> Reading:
        said = said_of(h, words, target[:, None].expand(-1, h.shape[1], -1))
        match = forced(said.log_p.transpose(1, 2), place)
        links = self.links(h, canvas.mask)
        sizes = mask.sum(-1), canvas.mask.sum(-1)
        log_p, impossible = dag_log_likelihood(match, links, *sizes)
        return Reading(
            said.best, -log_p, sizes[0], impossible, lambda: dag_best_path(match.detach(), links.detach(), *sizes)
        )

    def guess(self, h: Tensor, words: Tensor, canvas: Canvas, shown: Shown) -> Guess:
        """Open are the vertices on the path of the likeliest links."""
        graph = self._graph(h, words, canvas, shown, 1)
        path = PATHS["greedy"](graph, Search())
        log_p = torch.where(shown.hidden, graph.log_p[..., 0], shown.log_p)
        return Guess(graph.tokens[..., 0], log_p, path.on[:, 0] & canvas.hidden)

    def _graph(self, h: Tensor, words: Tensor, canvas: Canvas, shown: Shown, count: int) -> Graph:
        """The `count` likeliest words of each vertex; one for certain where it is shown, which no link passes by."""
        listed = top_rows(h.flatten(0, 1), words, count, self.banned)
        tokens, log_p = (part.view(*h.shape[:2], -1) for part in listed)
        certain = torch.where(torch.arange(log_p.shape[-1], device=h.device) == 0, 0.0, -torch.inf)
        hidden = shown.hidden[..., None]
        tokens = torch.where(hidden, tokens, shown.tokens[..., None])
        links = through(self.links(h, canvas.mask), ~shown.hidden)
        return Graph(links, tokens, torch.where(hidden, log_p, certain), canvas.mask.sum(-1))

    def write(self, h: Tensor, words: Tensor, canvas: Canvas, shown: Shown, finish: Finish, candidates: int) -> Written:
        graph = self._graph(h, words, canvas, shown, finish.vertex_tokens if finish.search in LISTS else 1)
        written = self._beam(graph, finish) if finish.search == BEAM else self._path(graph, canvas, finish)
        revealed = shown.log_p.masked_fill(shown.hidden, 0).sum(-1, keepdim=True)  # the end answers for these as well
        written = written._replace(end_log_p=written.end_log_p + revealed)
        return without_repeats(written) if finish.drop_repeats else written

    def _path(self, graph: Graph, canvas: Canvas, finish: Finish) -> Written:
        search = Search(finish.lookahead_weight, finish.length_penalty, finish.temperature, finish.keys)
        path = PATHS[finish.search](graph, search)
        said = path.on & canvas.hidden[:, None]
        end = path.log_p.masked_fill(said, 0).sum(-1)
        return Written(*packed(path.tokens, path.log_p, said), end)

    def _beam(self, graph: Graph, finish: Finish) -> Written:
        found = beam_search(graph, finish.beam, finish.longest, finish.length_penalty)
        said = torch.arange(found.tokens.shape[-1], device=found.tokens.device) < found.sizes[..., None]
        end = found.word_log_p.gather(-1, found.sizes[..., None])[..., 0]
        return Written(found.tokens, found.word_log_p[..., :-1], said, end)


def through(links: Tensor, shown: Tensor) -> Tensor:
    """links [B, L, L] without those that pass by a vertex that is `shown` [B, L]: every path goes through it.

    What is left of a row does not sum to one: a path's probability stays what it was without the condition.
    """
    size = shown.shape[-1]
    vertex = torch.arange(size, device=shown.device)
    later = torch.where(shown, vertex, size).flip(-1).cummin(-1).values.flip(-1)  # the next one shown, itself included
    following = torch.cat([later[:, 1:], torch.full_like(later[:, :1], size)], -1)
    return links.masked_fill(vertex > following[..., None], -torch.inf)


def forced(match: Tensor, place: Tensor) -> Tensor:
    """match [B, M, L] where every path must say the word t at the vertex j whose place [B, L] is t: there it costs
    nothing, and neither the word elsewhere nor the vertex with another word is possible."""
    shown = place[:, None] == torch.arange(match.shape[1], device=match.device)[:, None]
    taken = shown.any(-1, keepdim=True) | (place >= 0)[:, None]
    return torch.where(shown, 0.0, match.masked_fill(taken, -torch.inf))
