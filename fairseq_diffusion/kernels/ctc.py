"""Sums and maxima over all alignments of a target with a canvas (CTC, Graves et al. 2006).

The symbols on a canvas of L positions stand for y_1..y_T if dropping neighbouring repeats, and then blanks, leaves y.
An alignment is a path through the states blank, y_1, blank, y_2, ..., blank (0..2M): it begins in state 0 or 1 and ends
in 2T - 1 or 2T, and from one position to the next it stays, moves on by one state, or by two from a word to a different
word.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_diffusion.kernels.forms import form_for, widened

# The scaled form loses states whose share falls below 1e-308.  Where the prefixes and the suffixes kept agree on more
# than this at every position, what either lost did not matter (unless both lost it, at different positions).
LEAST_OVERLAP = 1e-200
LARGEST_TILT = 100.0  # nats a word; products of a few exp(100) are far from fp64's end


class Lattice(NamedTuple):
    """Weights of states and of the ways between them, S = 2M + 1.

    One position is added before the canvas, where all are in state 0, and one after it; there, and wherever a canvas
    has ended, all are in state 2T.
    """

    emit: Tensor  # [L + 2, B, S] of a state at a position
    step: Tensor  # [B, S] of the way into a state from the one before it
    skip: Tensor  # [B, S] of the way into a state from two before it


def ctc_log_likelihood(
    emission: Tensor, labels: Tensor, target_length: Tensor, canvas_size: Tensor, form: str | None = None
) -> tuple[Tensor, Tensor]:
    """log P(y | x) [B] over all alignments, and which targets do not fit on the canvas [B] (bool): they count 0.

    emission [B, L, 1 + M]: log-probabilities at each position of blank (first) and of the target's words y_1..y_M, -inf
    allowed; labels [B, M]: their token numbers, to find true repeats; target_length [B] <= M; canvas_size [B] <= L.

    The scaled form may lose a target whose alignments are hundreds of nats below other prefixes.  A CPU computes it
    again in log space, unless `form` is given; on a GPU, where looking would be a synchronisation, it is flagged too.
    """
    with torch.autocast(emission.device.type, enabled=False):
        log_p = LogLikelihood.apply(emission, labels, target_length, canvas_size, form)
        impossible = log_p.isneginf()
        return log_p.masked_fill(impossible, 0), impossible


def ctc_best_path(emission: Tensor, labels: Tensor, target_length: Tensor, canvas_size: Tensor) -> Tensor:
    """The best alignment [B, L]: 0 at a blank, k at y_k, -1 beyond the canvas or if there is none.

    Arguments as for the log-likelihood.
    """
    with torch.no_grad(), torch.autocast(emission.device.type, enabled=False):
        lattice, _ = _lattice(widened(emission, "log"), labels, target_length, canvas_size)
        score, arrived_by = _best(lattice)
        states = [2 * target_length[:, None]]
        for moves in arrived_by.unbind()[::-1]:
            states.append(states[-1] - moves.gather(-1, states[-1]))
        state = torch.cat(states[-2:0:-1], -1)  # without the two positions that were added
        found = _inside(emission, canvas_size) & ~score.isneginf()[:, None]
        return torch.where(found, (state + 1) // 2 * (state % 2), -1)


def collapse(tokens: Tensor, mask: Tensor, blank: int) -> Tensor:
    """Positions kept [..., L] when neighbouring repeats, and then blanks, are dropped from tokens [..., L].

    mask [..., L] is true at real positions.
    """
    repeated = torch.zeros_like(mask)
    repeated[..., 1:] = (tokens[..., 1:] == tokens[..., :-1]) & mask[..., :-1]
    return mask & (tokens != blank) & ~repeated


class LogLikelihood(torch.autograd.Function):
    """log P(y | x), -inf if impossible.  Its gradient is the posterior of each column at each position."""

    @staticmethod
    def forward(
        ctx: Any, emission: Tensor, labels: Tensor, target_length: Tensor, canvas_size: Tensor, form: str | None
    ) -> Tensor:
        """emission [B, L, 1 + M], labels [B, M], sizes [B] -> [B]."""
        arguments = emission, labels, target_length, canvas_size
        log_p, posterior = _marginalised(form or form_for(emission.device), *arguments)
        if form is None and emission.device.type == "cpu" and len(lost := log_p.isneginf().nonzero()[:, 0]):
            log_p[lost], posterior[lost] = _marginalised("log", *(argument[lost] for argument in arguments))
        ctx.save_for_backward(posterior.to(emission.dtype))
        return log_p.to(torch.promote_types(emission.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (posterior,) = ctx.saved_tensors
        return (grads[0][:, None, None] * posterior).to(posterior.dtype), None, None, None, None


def _marginalised(form: str, emission: Tensor, labels: Tensor, length: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """log P(y | x) [B], -inf if impossible, and the posterior of the columns [B, L, 1 + M]."""
    lattice, offset = _lattice(widened(emission, form), labels, length, size)
    log_p, posterior = {"scaled": _scaled, "log": _log}[form](lattice)
    blank, words = posterior[1:-1, :, 0::2].sum(-1, keepdim=True), posterior[1:-1, :, 1::2]
    columns = torch.cat([blank, words], -1).transpose(0, 1)
    return log_p + offset, columns.masked_fill(~_inside(emission, size)[..., None], 0)


def _inside(emission: Tensor, canvas_size: Tensor) -> Tensor:
    """Positions of the canvas, [B, L]."""
    return torch.arange(emission.shape[1], device=emission.device) < canvas_size[:, None]


def _lattice(emission: Tensor, labels: Tensor, length: Tensor, size: Tensor) -> tuple[Lattice, Tensor]:
    """Log-weights, and what to add [B] to the log-weight of each path through them."""
    inside = _inside(emission, size)
    emission, tilt, offset = _near_one(emission, inside, length)
    batch, positions, columns = emission.shape
    emit = emission.new_empty(positions + 2, batch, 2 * columns - 1)
    padded = F.pad(emission, (0, 0, 1, 1), value=-torch.inf).transpose(0, 1)
    emit[:, :, 0::2], emit[:, :, 1::2] = padded[..., :1], padded[..., 1:]
    emit[0, :, 0] = 0
    last = torch.arange(2 * columns - 1, device=emission.device) == 2 * length[:, None]
    emit[1:].masked_fill_(last & ~F.pad(inside, (0, 1)).T[..., None], 0)
    step, skip = torch.zeros_like(emit[0]), torch.full_like(emit[0], -torch.inf)
    step[:, 1::2] = tilt
    skip[:, 3::2] = tilt[:, 1:].masked_fill(labels[:, 1:] == labels[:, :-1], -torch.inf)
    return Lattice(emit, step, skip), offset


def _near_one(emission: Tensor, inside: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """emission [B, L, 1 + M] brought near 1 by what every alignment pays alike, -inf where there is no such cell.

    At each position the largest weight becomes 1, and on the way into word k an alignment gains the tilt [B, M]: what
    word k lacks where it is likeliest.  Without that, prefixes with too few words would leave the true ones far
    behind.  Returned too: what this takes from each alignment [B].
    """
    real = torch.arange(emission.shape[2], device=emission.device) <= length[:, None]
    emission = emission.masked_fill(~(inside[..., None] & real[:, None]), -torch.inf)
    peak = emission.amax(-1).clamp(min=torch.finfo(emission.dtype).min)
    emission = emission - peak[..., None]
    tilt = -emission[..., 1:].amax(1).clamp(min=-LARGEST_TILT)
    taken = peak.masked_fill(~inside, 0).sum(-1) - tilt.masked_fill(~real[:, 1:], 0).sum(-1)
    return emission, tilt, taken


def _both_ways(lattice: Lattice) -> Lattice:
    """The lattice, and behind it in the batch that of the reversed sentences: backward sums are forward sums there."""
    emit, step, skip = lattice
    return Lattice(
        torch.cat([emit, emit.flip(0, 2)], 1),
        torch.cat([step, step.flip(1).roll(1, 1)]),  # what led into state s leads out of it, so into its neighbour
        torch.cat([skip, skip.flip(1).roll(2, 1)]),
    )


def _scaled(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """log-weight of all paths [B], -inf where it is 0 or lost, and posterior of the states [L + 2, B, S]."""
    emit, step, skip = (weight.exp_() for weight in _both_ways(lattice))
    arrived, totals = torch.ones_like(emit), emit.new_ones(emit.shape[:2])
    here, one_before, two_before = _shifts(emit, 0)
    for arriving, weight, total in zip(arrived[1:], emit[1:], totals[1:]):
        torch.addcmul(here, step, one_before, out=arriving).addcmul_(skip, two_before)
        torch.mul(arriving, weight, out=here)
        torch.sum(here, -1, out=total)
        here /= total.clamp(min=torch.finfo(total.dtype).tiny)[:, None]
    forward, backward = arrived.chunk(2, 1)
    posterior = forward.mul_(emit.chunk(2, 1)[0]).mul_(backward.flip(0, 2))
    overlap = posterior.sum(-1, keepdim=True)
    lost = overlap.amin(0)[:, 0] <= LEAST_OVERLAP
    posterior = posterior.div_(overlap).masked_fill_(lost[:, None], 0)
    log_p = totals.chunk(2, 1)[0].log().sum(0)
    return log_p.masked_fill(lost, -torch.inf), posterior


def _log(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """As the scaled form, from sums of logarithms: nothing is lost."""
    emit, step, skip = _both_ways(lattice)
    arrived = torch.zeros_like(emit)
    here, one_before, two_before = _shifts(emit, -torch.inf)
    for arriving, weight in zip(arrived[1:], emit[1:]):
        torch.logaddexp(here, one_before + step, out=arriving)
        torch.logaddexp(arriving, two_before + skip, out=arriving)
        torch.add(arriving, weight, out=here)
    forward, backward = arrived.chunk(2, 1)
    log_weight = forward.add_(lattice.emit).add_(backward.flip(0, 2))
    overlap = log_weight.logsumexp(-1, keepdim=True)
    posterior = log_weight.sub_(overlap.clamp(min=torch.finfo(emit.dtype).min)).exp_()
    return overlap[-1, :, 0], posterior


def _best(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """log-weight of the best path [B], and how many states back the best way into a state begins [L + 1, B, S]."""
    emit, step, skip = lattice
    here, one_before, two_before = _shifts(emit, -torch.inf)
    arrived_by = torch.empty_like(emit[1:], dtype=torch.int8)
    for moves, weight in zip(arrived_by, emit[1:]):
        best, move = torch.stack([here, one_before + step, two_before + skip]).max(0)
        moves.copy_(move)
        torch.add(best, weight, out=here)
    return here.amax(-1), arrived_by


def _shifts(emit: Tensor, nothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """A buffer [N, S] that starts as the first position's weights, and the same memory one and two states back."""
    buffer = emit.new_full((emit.shape[1], emit.shape[2] + 2), nothing)
    buffer[:, 2:] = emit[0]
    return buffer[:, 2:], buffer[:, 1:-1], buffer[:, :-2]
