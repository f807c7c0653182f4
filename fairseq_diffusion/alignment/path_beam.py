"""Beam search over the sentences of a graph, the paths summed out.

alpha_t(j) = P(the words so far are y_1..t, and the path is at vertex j), as alignment/beam.py keeps it:

    alpha_{t+1}(j) = P(y_{t+1} | v_j) sum_i alpha_t(i) E(i -> j),
    P(Y) = P(end | last) sum_i alpha_|y|(i) E(i -> last).

Links and words are distributions, so sum_j alpha_t(j) is the probability of the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_diffusion.alignment.beam import Places, numbered
from fairseq_diffusion.alignment.paths import Graph


@dataclass(frozen=True)
class Vertices(Places):
    """Those of a graph.  The last one has the first of its words, which is the end; the ends are no words here."""

    links: Tensor  # [B, L, L] E(i -> j), none to the last vertex; fp64
    ending: Tensor  # [B, L, 1] E(i -> last) P(end | last)

    @classmethod
    def of(cls, graph: Graph) -> Vertices:
        graph = graph.cleaned()
        vertex = torch.arange(graph.links.shape[1], device=graph.links.device)
        last = graph.last[:, None, None]
        links, p = graph.links.double().exp(), graph.log_p.double().exp()
        into_last = links.gather(2, last.expand(-1, links.shape[1], 1))
        ending = into_last * p[..., :1].gather(1, last)
        padding, at_the_end = (vertex > last[..., 0])[..., None], torch.iinfo(graph.tokens.dtype).max
        number, words = numbered(graph.tokens.masked_fill(padding, at_the_end))
        return cls(p, number, words, links.masked_fill(vertex == last, 0.0), ending)

    @property
    def most(self) -> int:
        return self.links.shape[1] - 2

    def start(self) -> Tensor:
        graphs, vertices = self.links.shape[:2]
        return F.pad(self.links.new_ones(graphs, 1), (0, vertices - 1))

    def end(self, alpha: Tensor) -> Tensor:
        return (alpha @ self.ending)[..., 0]

    def reach(self, alpha: Tensor, last: Tensor) -> Tensor:
        return (alpha @ self.links)[..., None]

    def step(self, alpha: Tensor, repeats: Tensor, emission: Tensor) -> Tensor:
        return (alpha @ self.links) * emission
