"""Log-probabilities of chosen words under a linear layer and softmax, without its logits: chunk x V, not N x V."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_diffusion.kernels import choice, launch
from fairseq_diffusion.kernels.portable import best_of, log_sum, products


class WordScores(NamedTuple):
    """softmax(x W^T) of N rows."""

    log_p: Tensor  # [N, M] log-probabilities of the words asked for
    mean: Tensor  # [N] mean log-probability over all V words, for label smoothing
    best: Tensor  # [N] likeliest word
    best_log_p: Tensor  # [N] and its log-probability, without gradient


class LinearLogProbs(torch.autograd.Function):
    """log softmax(x W^T) at `index`; the backward pass makes the logits again.

    Triton's kernels take one word a row, and leave out rows outside `mask`: their results have no meaning.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, index: Tensor, mask: Tensor | None, best: bool) -> Any:
        """x [N, D], weight [V, D], index [N, M], mask [N] -> log_p [N, M], mean [N]; best, best_log_p if wanted."""
        ctx.triton = index.shape[1] == 1 and choice.uses_triton(x, weight)
        words, logit, picked, lse = (_scanned if ctx.triton else _chunked)(x, weight, index, mask, best)
        ctx.save_for_backward(x, weight, index, mask, lse)
        ctx.set_materialize_grads(False)  # None: an output was not used, so there is less to do
        mean = x.float() @ weight.mean(0, dtype=torch.float32) - lse
        best_log_p = logit - lse if best else None
        ctx.mark_non_differentiable(*([words, best_log_p] if best else []))
        return picked - lse[:, None], mean, words, best_log_p

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, index, mask, lse = ctx.saved_tensors
        chosen = torch.zeros_like(index, dtype=torch.float32) if grads[0] is None else grads[0]
        smooth = torch.zeros_like(lse) if grads[1] is None else grads[1]
        wanted = ctx.needs_input_grad[:2]
        if ctx.triton and launch.has_gradients(x, weight):
            own = chosen[:, 0]
            grad_x, grad_weight = launch.gradients(x, weight, index[:, 0], mask, lse, own, own + smooth, wanted)
        else:
            grad_x, grad_weight = _chunked_gradients(x.float(), weight.float(), index, lse, chosen, smooth, wanted)
        if grads[1] is not None:  # the mean's logits are x times the mean of the rows of W
            if grad_x is not None:
                grad_x.addr_(smooth, weight.mean(0, dtype=torch.float32))
            if grad_weight is not None:
                grad_weight += smooth @ x.float() / len(weight)
        cast = ((x, grad_x), (weight, grad_weight))
        return *(None if grad is None else grad.to(like.dtype) for like, grad in cast), None, None, None


def _scanned(x: Tensor, weight: Tensor, index: Tensor, mask: Tensor | None, best: bool) -> tuple[Any, ...]:
    """Best words and their logits (if wanted), logits at `index` and log-partition, of x [N, D], index [N, 1]."""
    found = launch.scan(x, weight, target=index[:, 0], mask=mask, best=best, total=True)
    return found.word, found.logit, found.chosen[:, None], found.lse


def _chunked(x: Tensor, weight: Tensor, index: Tensor, mask: Tensor | None, best: bool) -> tuple[Any, ...]:
    """The same of all rows, index [N, M]."""
    pieces: list[tuple[Any, ...]] = []
    for rows, logits in products(x.float(), weight.float()):
        picked = logits.gather(-1, index[rows])
        peak, words = best_of(logits) if best else (logits.amax(-1), None)
        pieces.append((words, peak, picked, log_sum(logits, peak)))
    columns = list(zip(*pieces))
    return torch.cat(columns[0]) if best else None, *(torch.cat(column) for column in columns[1:])


def _chunked_gradients(
    x: Tensor, weight: Tensor, index: Tensor, lse: Tensor, chosen: Tensor, smooth: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and W, but for what reaches the mean's logits; the logits become those of the loss by them."""
    grad_x = torch.empty_like(x) if wanted[0] else None
    grad_weight = torch.zeros_like(weight) if wanted[1] else None
    total = (chosen.sum(-1) + smooth)[:, None]
    for rows, logits in products(x, weight):
        residual = logits.sub_(lse[rows, None]).exp_().mul_(-total[rows])
        residual = residual.scatter_add_(-1, index[rows], chosen[rows])[:, : len(weight)]
        if grad_x is not None:
            torch.mm(residual, weight, out=grad_x[rows])
        if grad_weight is not None:
            grad_weight.addmm_(residual.T, x[rows])
    return grad_x, grad_weight


def linear_log_probs(x: Tensor, weight: Tensor, index: Tensor) -> WordScores:
    """softmax(x W^T) at the words index [N, M], for x [N, D], weight [V, D]; fp32 under any autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return WordScores(*LinearLogProbs.apply(x, weight, index, None, True))
