"""Sums over alignments, and best ones, against the textbook loop in the same run; prints a table and writes JSON.

The loops are batched too, in logarithms, and autograd goes through them.  Each row is the median of --repeats calls,
after one that is not counted; ratio > 1: faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from benchmark import Row, flags, report, versus
from torch import Tensor

from fairseq_diffusion.kernels.ctc import ctc_log_likelihood
from fairseq_diffusion.kernels.dag import dag_best_path, dag_log_likelihood

NOTHING = -1e9  # stands for -inf, whose gradient the loops could not take


def main() -> int:
    parser = flags(__doc__, repeats=5)
    parser.add_argument("--sizes", nargs="+", default=["8x20", "32x30"], help="sentences x words (8x20 32x30)")
    options = parser.parse_args()
    torch.manual_seed(0)
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes]
    report([row for bench in (bench_dag, bench_ctc) for size in sizes for row in bench(*size, options)], options)
    return 0


def bench_dag(B: int, M: int, options: argparse.Namespace) -> list[Row]:
    """Likelihood with its gradients, and best path, of M words in a graph of L = 8 M vertices."""
    L = 8 * M
    match = torch.randn(B, M, L, device=options.device).sub(8)
    links = torch.randn(B, L, L, device=options.device)
    behind = ~torch.ones_like(links).bool().triu(1)
    links = links.masked_fill(behind, NOTHING).log_softmax(-1).masked_fill(behind, NOTHING)
    lengths, sizes = (torch.full((B,), size, device=options.device) for size in (M, L))
    ours = partial(with_gradients, lambda *x: dag_log_likelihood(*x, lengths, sizes)[0], match, links)
    loop = partial(with_gradients, loop_over_words, match, links)
    best, kept = partial(dag_best_path, match, links, lengths, sizes), partial(path_by_pointers, match, links)
    return [
        versus(f"DAG, {B} x {M} words in {L} vertices, with gradients", ours, loop, options),
        versus(f"DAG, {B} x {M} words in {L} vertices, best path", best, kept, options),
    ]


def bench_ctc(B: int, M: int, options: argparse.Namespace) -> list[Row]:
    """Likelihood with its gradient of M words on a canvas of L = 3 M positions."""
    L = 3 * M
    emission = torch.randn(B, L, M + 1, device=options.device).sub(8)
    labels = torch.arange(M, device=options.device).expand(B, M)
    lengths, sizes = (torch.full((B,), size, device=options.device) for size in (M, L))
    ours = partial(with_gradients, lambda x: ctc_log_likelihood(x, labels, lengths, sizes)[0], emission)
    loop = partial(with_gradients, loop_over_positions, emission)
    return [versus(f"CTC, {B} x {M} words on {L} positions, with gradient", ours, loop, options)]


def with_gradients(likelihood: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward."""
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    return torch.autograd.grad(likelihood(*inputs).sum(), inputs)


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


if __name__ == "__main__":
    raise SystemExit(main())
