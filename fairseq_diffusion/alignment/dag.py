"""A directed acyclic graph of words: a canvas several times as long as the source, through which each path from its
first vertex to its last is a sentence (Huang et al. 2022, DA-Transformer; the equations are in kernels/dag.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.alignment.base import (
    ALIGNMENTS,
    Alignment,
    Canvas,
    Guess,
    Reading,
    Revealed,
    Scored,
    Symbols,
    Words,
    fitting,
    side_by_side,
    word_scores,
)
from fairseq_diffusion.alignment.beam import beam_search
from fairseq_diffusion.alignment.path_beam import Vertices
from fairseq_diffusion.alignment.path_template import best_with_template
from fairseq_diffusion.alignment.paths import BEAM, LISTS, PATHS, SEARCHES, Graph, Path, SearchOptions
from fairseq_diffusion.alignment.template import Template
from fairseq_diffusion.kernels.dag import dag_best_path, dag_log_likelihood
from fairseq_diffusion.kernels.rounding import top_rows
from fairseq_diffusion.network.links import Links


@ALIGNMENTS.register("dag")
class DAGAlignment(Alignment):
    """All paths summed up; a revealed word forces them through its vertex."""

    name = "dag"
    searches = SEARCHES

    def __init__(self, symbols: Symbols, upsample: float, links: Links, longest: int = 256):
        super().__init__(symbols, upsample, longest)
        self.links = links

    def score(self, h: Tensor, words: Tensor, target: Tensor, mask: Tensor, canvas: Canvas, index: Tensor) -> Scored:
        scores = word_scores(h, words, target[:, None].expand(-1, h.shape[1], -1))
        match = forced(scores.log_p.transpose(1, 2), index)
        links = self.links(h, canvas.mask)
        sizes = mask.sum(-1), canvas.mask.sum(-1)
        log_p, impossible = dag_log_likelihood(match, links, *sizes)
        return Scored(
            scores.best,
            -log_p,
            sizes[0],
            impossible,
            lambda: fitting(*dag_log_likelihood(match.double(), links.double(), *sizes, form="log")),
            lambda: dag_best_path(match.detach(), links.detach(), *sizes),
        )

    def guess(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed) -> Guess:
        """Words are predicted by the vertices on the path of the most probable links."""
        graph = self._graph(h, words, canvas, revealed, 1)
        path = PATHS["greedy"](graph, SearchOptions(), None)
        tokens, log_p = graph.tokens[..., 0], graph.log_p[..., 0]
        if canvas.template is not None:
            path = self._with_template(path, graph, h, words, canvas.template, revealed, 1.0)
            tokens = path.tokens[:, 0]
            log_p = word_scores(h, words, tokens[..., None]).log_p[..., 0]
        log_p = torch.where(revealed.hidden, log_p, revealed.log_p)
        return Guess(tokens, log_p, path.on[:, 0] & canvas.hidden)

    def _with_template(
        self,
        plain: Path,
        graph: Graph,
        h: Tensor,
        words: Tensor,
        template: Template,
        revealed: Revealed,
        length_penalty: float,
    ) -> Path:
        """The best paths with a template's words on them; where that is a mere gap, the `plain` one."""
        own, hidden = word_scores(h, words, template.at(h.shape[1])).log_p, revealed.hidden[..., None]
        shown = torch.where(template.at(h.shape[1]) == revealed.tokens[..., None], 0.0, -torch.inf)
        found = best_with_template(graph, torch.where(hidden, own, shown), template, length_penalty)
        return Path(*(torch.where(template.open[:, None, None], *pair) for pair in zip(plain, found)))

    def _graph(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed, count: int) -> Graph:
        """The `count` most probable words of each vertex; one for certain where it is revealed, which no link passes
        by."""
        listed = top_rows(h.flatten(0, 1), words, count, self.banned)
        tokens, log_p = (part.view(*h.shape[:2], -1) for part in listed)
        certain = torch.where(torch.arange(log_p.shape[-1], device=h.device) == 0, 0.0, -torch.inf)
        hidden = revealed.hidden[..., None]
        tokens = torch.where(hidden, tokens, revealed.tokens[..., None])
        links = through(self.links(h, canvas.mask), ~revealed.hidden)
        return Graph(links, tokens, torch.where(hidden, log_p, certain), canvas.mask.sum(-1))

    def words(self, h: Tensor, words: Tensor, canvas: Canvas, revealed: Revealed, how: Reading) -> Words:
        o = how.options
        graph = self._graph(h, words, canvas, revealed, o.vertex_tokens if o.path_search in LISTS else 1)
        if o.path_search == BEAM:
            found = self._beam(graph, o)
        else:
            path = PATHS[o.path_search](graph, o, how.keys)
            if canvas.template is not None:
                path = self._with_template(path, graph, h, words, canvas.template, revealed, o.length_penalty)
            found = self._words_on(path, canvas)
        shown = revealed.log_p.masked_fill(revealed.hidden, 0).sum(-1, keepdim=True)  # goes to the end, too
        return found._replace(end_log_p=found.end_log_p + shown)

    def _words_on(self, path: Path, canvas: Canvas) -> Words:
        mask = path.on & canvas.hidden[:, None]
        end = path.log_p.masked_fill(mask, 0).sum(-1)
        return side_by_side(Words(path.tokens, path.log_p, mask, end))

    def _beam(self, graph: Graph, options: SearchOptions) -> Words:
        return Words.of(beam_search(Vertices.of(graph), options.beam, self.longest, options.length_penalty))


def through(links: Tensor, shown: Tensor) -> Tensor:
    """links [B, L, L] without those that pass by a vertex that is `shown` [B, L]: every path goes through it.

    What is left of a row does not sum to one: a path's probability stays what it was without the condition.
    """
    upto = shown.long().cumsum(-1)
    return links.masked_fill((upto - shown.long())[:, None] > upto[..., None], -torch.inf)


def forced(match: Tensor, index: Tensor) -> Tensor:
    """match [B, M, L] where every path must have the word t at the vertex j whose index [B, L] is t: there it costs
    nothing, and neither the word elsewhere nor the vertex with another word is possible."""
    shown = index[:, None] == torch.arange(match.shape[1], device=match.device)[:, None]
    taken = shown.any(-1, keepdim=True) | (index >= 0)[:, None]
    return torch.where(shown, 0.0, match.masked_fill(taken, -torch.inf))
