"""Log-probabilities of chosen words under a linear layer and softmax, without its logits: chunk x V, not N x V."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.kernels.chunks import chunk_rows


class Said(NamedTuple):
    """What softmax(x W^T) says of N rows."""

    log_p: Tensor  # [N, M] log-probabilities of the words asked for
    mean: Tensor  # [N] mean log-probability over all V words, for label smoothing
    best: Tensor  # [N] likeliest word
    best_log_p: Tensor  # [N] and its log-probability, without gradient


class LinearLogProbs(torch.autograd.Function):
    """log softmax(x W^T) at `index`; the backward pass makes the logits again, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """x [N, D], weight [V, D], index [N, M] -> log_p [N, M], mean [N], best [N], best_log_p [N]."""
        rows = chunk_rows(len(weight), x.device)
        pieces = [_said(chunk @ weight.T, at) for chunk, at in zip(x.split(rows), index.split(rows))]
        *said, partition = (torch.cat(column) for column in zip(*pieces))
        ctx.save_for_backward(x, weight, index, partition)
        ctx.mark_non_differentiable(*said[2:])
        ctx.set_materialize_grads(False)  # None says that an output was not used: less to do
        return tuple(said)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, index, partition = ctx.saved_tensors
        grad_log_p = torch.zeros_like(index, dtype=x.dtype) if grads[0] is None else grads[0]
        grad_mean = torch.zeros_like(partition) if grads[1] is None else grads[1]
        rows = chunk_rows(len(weight), x.device)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        pieces = zip(*(whole.split(rows) for whole in (x, index, partition, grad_log_p, grad_mean)))
        for i, (chunk, at, lse, grad, smooth) in enumerate(pieces):
            residual = (chunk @ weight.T).sub_(lse[:, None]).exp_().mul_(-(grad.sum(-1) + smooth)[:, None])
            if grads[1] is not None:
                residual += smooth[:, None] / len(weight)
            residual.scatter_add_(-1, at, grad)
            if grad_x is not None:
                torch.mm(residual, weight, out=grad_x[i * rows : i * rows + len(chunk)])
            if grad_weight is not None:
                grad_weight.addmm_(residual.T, chunk)
        return grad_x, grad_weight, None


def _said(logits: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """logits [n, V], overwritten, index [n, M] -> log_p [n, M], mean, best, best_log_p and log-partition, all [n]."""
    picked, mean = logits.gather(-1, index), logits.mean(-1)
    peak, best = logits.max(-1)
    spread = logits.sub_(peak[:, None]).exp_().sum(-1).log()
    partition = peak + spread
    return picked - partition[:, None], mean - partition, best, -spread, partition


def linear_log_probs(x: Tensor, weight: Tensor, index: Tensor) -> Said:
    """What softmax(x W^T) says of the words index [N, M], for x [N, D], weight [V, D]; fp32 under any autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return Said(*LinearLogProbs.apply(x.float(), weight.float(), index))
