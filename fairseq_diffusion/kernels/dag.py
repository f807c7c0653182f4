"""Likelihood and best path of a target in a directed acyclic graph of vertices (Huang et al. 2022, DA-Transformer).

    P(y, A | x) = prod_t P(y_t | v_a_t) prod_t E(a_t-1 -> a_t),    0 = a_1 < a_2 < ... < a_M = L - 1

    alpha_t(j) = log P(y_t | v_j) + log sum_i exp alpha_t-1(i) E(i -> j)        words up to t, the last at j
    beta_t(i)  = log sum_j E(i -> j) P(y_t+1 | v_j) exp beta_t+1(j)             words after t, if word t is at i

Words and vertices count from 0 below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_diffusion.kernels.dag_forms import FORMS, Scaled
from fairseq_diffusion.kernels.forms import form_for, widened
from fairseq_diffusion.kernels.portable import chunk_rows


def dag_log_likelihood(
    match: Tensor, links: Tensor, target_length: Tensor, graph_size: Tensor, form: str | None = None
) -> tuple[Tensor, Tensor]:
    """log P(y | x) [B], summed over all paths, and which sentences were left out [B] (bool): value 0, gradient 0.

    match [B, M, L]: log-probability of target word t at vertex j; links [B, L, L]: log E(i -> j), -inf where there is
    none; target_length [B] <= M, graph_size [B] <= L.  What lies outside, and links that do not lead on, are not read.

    Left out is a target that no path has.  The "scaled" form also leaves out a target whose sum it may have got
    wrong, because what it needs is some 700 nats below what it scales by.  On a CPU those are summed again in
    logarithms, so there every target left out is an impossible one; on a GPU that look would be a synchronisation.
    """
    with torch.autocast(match.device.type, enabled=False):
        groups = grouped(match, links, target_length, graph_size)
        log_p, left_out = zip(*(likelihood_of_group(form, *group) for group in groups))
    return torch.cat(log_p), torch.cat(left_out)


@torch.no_grad()
def dag_best_path(match: Tensor, links: Tensor, target_length: Tensor, graph_size: Tensor) -> Tensor:
    """Which word t each vertex has on the best path, -1 off the path (everywhere, if there is none) -> [B, L].

    Arguments as above; where two paths are equally good, the one whose vertices are lower, looking from the last word.
    """
    with torch.autocast(match.device.type, enabled=False):
        return torch.cat([best_path_of_group(*group) for group in grouped(match, links, target_length, graph_size)])


def grouped(match: Tensor, links: Tensor, *sizes: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The arguments in fp32 at least, a few sentences at a time: their links, read for each word, stay in the cache."""
    sentences = chunk_rows(links.shape[1] * links.shape[2], links.device)
    match, links = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (match, links))
    return zip(*(argument.split(sentences) for argument in (match, links, *sizes)))


def likelihood_of_group(form: str | None, *group: Tensor) -> tuple[Tensor, Tensor]:
    """log P [B] and what was left out [B]; on a CPU, unless a form is asked for, computed again in logarithms where
    needed."""
    device = group[0].device
    log_p, left_out = DagLikelihood.apply(*group, form or form_for(device))
    if form is None and device.type == "cpu" and left_out.any():
        rows = left_out.nonzero()[:, 0]
        second, impossible = DagLikelihood.apply(*(argument[rows] for argument in group), "log")
        log_p, left_out = log_p.index_copy(0, rows, second), left_out.index_copy(0, rows, impossible)
    return log_p, left_out


def best_path_of_group(match: Tensor, links: Tensor, target_length: Tensor, graph_size: Tensor) -> Tensor:
    """match [B, M, L], links [B, L, L], sizes [B] -> [B, L]."""
    match, links = live_match(match, target_length, graph_size), open_links(links, graph_size)
    delta, buffer = [match[:, 0]], torch.empty_like(links)
    for word in match.unbind(1)[1:]:
        delta.append(word + torch.add(delta[-1][:, :, None], links, out=buffer).amax(1))
    return trace_back(torch.stack(delta, 1), links, target_length, graph_size)


class DagLikelihood(torch.autograd.Function):
    """The sum over paths with its gradient in closed form: posteriors of cells and of links."""

    @staticmethod
    def forward(
        ctx: Any, match: Tensor, links: Tensor, target_length: Tensor, graph_size: Tensor, form: str
    ) -> tuple[Tensor, Tensor]:
        """match [B, M, L], links [B, L, L], sizes [B] -> log P [B], left out [B]."""
        steps = FORMS[form].of(widened(open_links(links, graph_size), form))
        live = live_match(widened(match, form), target_length, graph_size)
        alpha, beta = prefixes(live, steps), suffixes(live, steps, target_length)
        log_p = at_the_end(alpha, target_length, graph_size)
        kept = steps.trusted(alpha, live + beta, log_p)
        log_p, alpha = log_p.where(kept, 0.0), alpha.where(kept[:, None, None], -torch.inf)
        ctx.save_for_backward(live, steps.weights, alpha, beta, log_p)
        ctx.form = form
        ctx.mark_non_differentiable(left_out := ~kept)
        return log_p.to(match.dtype), left_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        match, weights, alpha, beta, log_p = ctx.saved_tensors
        grad = grads[0].to(alpha.dtype)[:, None, None]
        grad_match = grad_links = None
        if ctx.needs_input_grad[0]:
            grad_match = (alpha + beta - log_p[:, None, None]).exp_().mul_(grad)
        if ctx.needs_input_grad[1]:
            grad_links = FORMS[ctx.form](weights).pairs(alpha, match + beta, log_p).mul_(grad)
        return grad_match, grad_links, None, None, None


def prefixes(match: Tensor, steps: Scaled) -> Tensor:
    """alpha [B, M, L] of match [B, M, L]."""
    alpha = [match[:, 0]]
    for word in match.unbind(1)[1:]:
        alpha.append(word + steps.arrive(alpha[-1]))
    return torch.stack(alpha, 1)


def suffixes(match: Tensor, steps: Scaled, target_length: Tensor) -> Tensor:
    """beta [B, M, L] of match [B, M, L]; 0 at the last word, whose live cells end the path."""
    last = target_length[:, None] - 1
    beta = [torch.zeros_like(match[:, 0])]
    for t in range(match.shape[1] - 1, 0, -1):
        beta.append(steps.leave(match[:, t] + beta[-1]).where(last != t - 1, 0.0))
    return torch.stack(beta[::-1], 1)


def live_match(match: Tensor, target_length: Tensor, graph_size: Tensor) -> Tensor:
    """match [B, M, L], -inf in the cells (t, j) that no path crosses, for sizes [B].

    Word 0 alone is at vertex 0, the last word alone at the last vertex; before vertex j there is room for the words
    before t, and after it for those after t.  (A mass that could only run out of room would raise the scale in vain.)
    """
    t = torch.arange(match.shape[1], device=match.device)[:, None]
    j = torch.arange(match.shape[2], device=match.device)
    m, g = target_length[:, None, None], graph_size[:, None, None]
    room = (j >= t) & (j - t <= g - m) & (t < m)
    return match.where(room & ((t == 0) == (j == 0)) & ((t == m - 1) == (j == g - 1)), -torch.inf)


def open_links(links: Tensor, graph_size: Tensor) -> Tensor:
    """links [B, L, L], -inf unless i < j < graph_size [B]; a new tensor."""
    j = torch.arange(links.shape[2], device=links.device)
    return links.where((j[:, None] < j) & (j < graph_size[:, None, None]), -torch.inf)


def at_the_end(scores: Tensor, target_length: Tensor, graph_size: Tensor) -> Tensor:
    """scores [B, M, L] of the last word at the last vertex -> [B]."""
    sentence = torch.arange(len(scores), device=scores.device)
    return scores[sentence, (target_length - 1).clamp(min=0), (graph_size - 1).clamp(min=0)]


def trace_back(delta: Tensor, links: Tensor, target_length: Tensor, graph_size: Tensor) -> Tensor:
    """The words [B, L] on the best path, for delta [B, M, L]: the best prefix that has word t at vertex j."""
    sentence, place = torch.arange(len(delta), device=delta.device), torch.arange(delta.shape[2], device=delta.device)
    exists = at_the_end(delta, target_length, graph_size) > -torch.inf
    vertex = (graph_size - 1).clamp(min=0)
    words = torch.full_like(delta[:, 0], -1, dtype=torch.long)
    for t in range(delta.shape[1] - 1, -1, -1):
        on = exists & (t < target_length)
        words = words.masked_fill(on[:, None] & (place == vertex[:, None]), t)
        if t:
            # Looked up again for the one vertex that matters: keeping where each came from costs a slower maximum.
            before = (delta[:, t - 1] + links[sentence, :, vertex]).argmax(-1)
            vertex = before.where(on, vertex)
    return words
