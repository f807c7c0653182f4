"""Sums over alignments, and best ones, against the textbook loop: in logarithms, batched too, autograd through it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from common import Row
from forms import Work, apart, checked, in_turns
from torch import Tensor

from fairseq_diffusion.kernels.ctc import ctc_log_likelihood
from fairseq_diffusion.kernels.dag import dag_best_path, dag_log_likelihood

SIZES = {"quick": [(2, 3)], "cpu": [(8, 20), (32, 30)], "cuda": [(32, 30), (256, 30)]}  # sentences, words
NOTHING = -1e9  # stands for -inf, whose gradient the loops could not take
FP32 = 1e-3  # of the largest number


def rows(options: argparse.Namespace) -> list[Row]:
    found = []
    for bench in (of_graphs, best_paths, of_ctc):
        for B, M in SIZES[options.size]:
            what, forms = bench(B, M, options.device)
            found += in_turns(Work(f"{what}, {B} x {M} words", {}, B * M), forms, 0.0, options)
    return found


def graph(B: int, M: int, device: str) -> tuple[Tensor, ...]:
    """M words in L = 8 M vertices: match [B, M, L], links [B, L, L] and both sizes [B]."""
    L = 8 * M
    match, links = torch.randn(B, M, L, device=device).sub(8), torch.randn(B, L, L, device=device)
    behind = ~torch.ones_like(links).bool().triu(1)
    links = links.masked_fill(behind, NOTHING).log_softmax(-1).masked_fill(behind, NOTHING)
    lengths, sizes = (torch.full((B,), size, device=device) for size in (M, L))
    return match, links, lengths, sizes


Forms = tuple[str, dict[str, Callable[[], tuple[Tensor, ...]]]]


def of_graphs(B: int, M: int, device: str) -> Forms:
    """Likelihood in a graph, with its gradients."""
    match, links, lengths, sizes = graph(B, M, device)
    ours = partial(with_gradients, lambda *x: dag_log_likelihood(*x, lengths, sizes)[0], match, links)
    loop = partial(with_gradients, loop_over_words, match, links)
    return agreed(f"DAG of {8 * M} vertices, with gradients", loop, ours)


def best_paths(B: int, M: int, device: str) -> Forms:
    """What each vertex says on the best path."""
    match, links, lengths, sizes = graph(B, M, device)

    def ours() -> tuple[Tensor, ...]:
        return (dag_best_path(match, links, lengths, sizes),)

    def loop() -> tuple[Tensor, ...]:
        said = torch.full_like(match[:, 0], -1, dtype=torch.long)
        words = torch.arange(M, device=device).expand(B, M)
        return (said.scatter(1, path_by_pointers(match, links), words),)

    return agreed(f"DAG of {8 * M} vertices, best path", loop, ours)


def of_ctc(B: int, M: int, device: str) -> Forms:
    """Likelihood on a canvas of L = 3 M positions, with its gradient."""
    L = 3 * M
    emission = torch.randn(B, L, M + 1, device=device).sub(8)
    labels = torch.arange(M, device=device).expand(B, M)
    lengths, sizes = (torch.full((B,), size, device=device) for size in (M, L))
    ours = partial(with_gradients, lambda x: ctc_log_likelihood(x, labels, lengths, sizes)[0], emission)
    loop = partial(with_gradients, loop_over_positions, emission)
    return agreed(f"CTC on {L} positions, with gradient", loop, ours)


def agreed(what: str, loop: Callable[[], tuple[Tensor, ...]], ours: Callable[[], tuple[Tensor, ...]]) -> Forms:
    for found, true in zip(ours(), loop()):
        checked(what, apart(found.double(), true.double()), FP32)
    return what, {"loop": loop, "ours": ours}


def with_gradients(likelihood: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward: the likelihood [B], and what it makes of each input."""
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    value = likelihood(*inputs)
    return value.detach(), *torch.autograd.grad(value.sum(), inputs)


def loop_over_words(match: Tensor, links: Tensor) -> Tensor:
    """log P [B] of match [B, M, L], links [B, L, L], all of full size."""
    alpha = match[:, 0].where(torch.arange(match.shape[2], device=match.device) == 0, NOTHING)
    for word in match.unbind(1)[1:]:
        alpha = word + (alpha[:, :, None] + links).logsumexp(1)
    return alpha[:, -1]


def path_by_pointers(match: Tensor, links: Tensor) -> Tensor:
    """The vertices [B, M] of the best path, from pointers kept at each step."""
    delta = match[:, 0].where(torch.arange(match.shape[2], device=match.device) == 0, NOTHING)
    pointers = []
    for word in match.unbind(1)[1:]:
        best, came_from = (delta[:, :, None] + links).max(1)
        delta = word + best
        pointers.append(came_from)
    vertices = [torch.full_like(pointers[0][:, :1], match.shape[2] - 1)]
    for came_from in reversed(pointers):
        vertices.append(came_from.gather(1, vertices[-1]))
    return torch.cat(vertices[::-1], 1)


def loop_over_positions(emission: Tensor) -> Tensor:
    """log P [B] of emission [B, L, 1 + M], all of full size, no two neighbouring words alike."""
    B, _, columns = emission.shape
    state = torch.arange(2 * columns - 1, device=emission.device)
    says = emission[:, :, (state + 1) // 2 * (state % 2)]
    skips, outside = (state % 2 == 1) & (state > 1), emission.new_full((B, 2), NOTHING)
    alpha = says[:, 0].where(state < 2, NOTHING)
    for position in says.unbind(1)[1:]:
        before = torch.cat([outside, alpha], 1)
        ways = torch.stack([alpha, before[:, 1:-1], before[:, :-2].where(skips, NOTHING)])
        alpha = position + ways.logsumexp(0)
    return alpha[:, -2:].logsumexp(-1)
