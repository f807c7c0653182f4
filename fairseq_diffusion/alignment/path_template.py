"""The best path through a graph of words that contains a template: joint Viterbi search over vertices and places in
the template."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.alignment.paths import Graph, Path, entries
from fairseq_diffusion.alignment.template import Template


class Gains(NamedTuple):
    """What a path gains at each vertex, with each place in the template: the last of its tokens that was passed."""

    links: Tensor  # [B, L, L]
    free: Tensor  # [B, M, L], of the most probable word, where the next token may be waited for
    own: Tensor  # [B, M, L], of the template's token itself

    @classmethod
    def of(cls, graph: Graph, words: Tensor, template: Template) -> Gains:
        """`words` [B, L, M] are log-probabilities of the template's tokens; </s> stands on the last vertex alone."""
        vertex, last = torch.arange(words.shape[1], device=words.device), graph.last[:, None]
        token = torch.arange(words.shape[2], device=words.device)
        at_end = (token == template.size[:, None] - 1)[..., None]
        inner, best = ((vertex > 0) & (vertex < last))[:, None], graph.log_p[:, None, :, 0]
        possible = torch.where(at_end, (vertex == last)[:, None], inner)
        own = torch.where(at_end, best, words.mT.float()).masked_fill(~possible, -torch.inf)
        waits = F.pad(template.gap[:, 1:], (0, 1))[..., None]
        return cls(graph.links, torch.where(waits & inner, best, -torch.inf), own)


@torch.no_grad()
def best_with_template(graph: Graph, words: Tensor, template: Template, length_penalty: float) -> Path:
    """One candidate: of all paths whose words contain the template, that of the largest

        sum_{i=1}^m [log E(a_{i-1} -> a_i) + log P(w_i | v_{a_i})] / m^length_penalty,

    for log-probabilities `words` [B, L, M] of the template's tokens at each vertex.  Graphs have room for the template.
    """
    graph = graph.cleaned()
    gains, vertices = Gains.of(graph, words, template), words.shape[1]
    first = torch.zeros_like(gains.own[0, 0]).masked_fill(torch.arange(vertices, device=words.device) > 0, -torch.inf)
    delta = [F.pad(first.expand(len(words), 1, -1), (0, 0, 0, words.shape[2] - 1), value=-torch.inf)]
    arriving = gains.links.mT.contiguous()[:, None]
    for k in range(1, vertices):  # k - 1 links lead to vertex k - 1 or beyond, so only those are looked at
        into = (delta[-1][:, :, None, k - 1 :] + arriving[..., k:, k - 1 :]).amax(-1)
        into = F.pad(into, (k, 0), value=-torch.inf)
        taken = F.pad(into[:, :-1] + gains.own[:, 1:], (0, 0, 1, 0), value=-torch.inf)
        delta.append(torch.maximum(into + gains.free, taken))
    rows, token, last = torch.arange(len(words), device=words.device), template.size - 1, graph.last
    total = torch.stack([each[rows, token, last] for each in delta[1:]], 1)
    m = 1 + (total / torch.arange(1, vertices, device=words.device) ** length_penalty).argmax(-1, keepdim=True)
    return traced(graph, gains, template, delta, m)


def traced(graph: Graph, gains: Gains, template: Template, delta: list[Tensor], m: Tensor) -> Path:
    """The path of m [B, 1] links, back from the end; delta_k [B, M, L] is the best of k links to each state."""
    rows = torch.arange(len(m), device=m.device)[:, None]
    token, at = (template.size - 1)[:, None], graph.last[:, None]
    on, tokens = torch.zeros_like(gains.links[:, 0]).bool(), graph.tokens[..., 0].clone()
    log_p = graph.log_p[..., 0].clone()
    on[:, 0] = True
    log_p = log_p.masked_fill(torch.arange(on.shape[1], device=m.device) > 0, 0.0)
    for k in range(len(delta) - 1, 0, -1):
        walking, link = k <= m, entries(gains.links.mT, at)[:, 0]
        before = torch.stack([delta[k - 1][rows[:, 0], (token[:, 0] - back).clamp(min=0)] + link for back in (0, 1)], 1)
        word = torch.cat([gains.free[rows, token, at], gains.own[rows, token, at]], 1)
        word = word.masked_fill((token == 0) & (torch.arange(2, device=m.device) == 1), -torch.inf)
        best, came = before.max(-1)
        back = (best + word).argmax(-1, keepdim=True)
        came = came.gather(1, back)
        symbol = torch.where(back == 1, template.tokens.gather(1, token), tokens.gather(1, at))
        gain = link.gather(1, came) + word.gather(1, back)
        on[rows, at] |= walking
        tokens[rows, at] = torch.where(walking, symbol, tokens[rows, at])
        log_p[rows, at] = torch.where(walking, gain, log_p[rows, at])
        token, at = torch.where(walking, token - back, token), torch.where(walking, came, at)
    return Path(on[:, None], tokens[:, None], log_p[:, None])
