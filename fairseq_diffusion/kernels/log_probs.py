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


class LinearLogProbs(torch.autograd.Function):
    """log softmax(x W^T) at `index`; the backward pass makes the logits again.

    Triton's kernels take one word a row, and leave out rows outside `mask`: their results have no meaning.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, index: Tensor, mask: Tensor | None, best: bool) -> Any:
        """x [N, D], weight [V, D], index [N, M], mask [N] -> log_p [N, M], mean [N], the best words [N] if wanted."""
        ctx.triton = index.shape[1] == 1 and choice.uses_triton(x, weight)
        if ctx.triton:
            found = launch.scan(x, weight, target=index[:, 0], mask=mask, best=best, total=True)
            words, picked, lse = found.word, found.chosen[:, None], found.lse
        else:
            words, picked, lse = _chunked(x, weight, index, best)
        ctx.save_for_backward(x, weight, index, mask, lse)
        ctx.set_materialize_grads(False)  # None: an output was not used, so there is less to do
        mean = x.float() @ weight.mean(0, dtype=torch.float32) - lse
        return picked - lse[:, None], mean, words

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


def _chunked(x: Tensor, weight: Tensor, index: Tensor, best: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """Best words [N] (if wanted), logits at `index` [N, M] and log-partition [N], of x [N, D]."""
    pieces: list[tuple[Any, ...]] = []
    for rows, logits in products(x.float(), weight.float()):
        picked = logits.gather(-1, index[rows])
        peak, words = best_of(logits) if best else (logits.amax(-1), None)
        pieces.append((words, picked, log_sum(logits, peak)))
    best_words, at_index, lse = zip(*pieces)
    return torch.cat(best_words) if best else None, torch.cat(at_index), torch.cat(lse)


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


def linear_cross_entropy(
    x: Tensor, weight: Tensor, target: Tensor, label_smoothing: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Cross-entropy [N] of softmax(x W^T) for x [N, D], weight [V, D], target [N]; fp32 under any autocast.

    Smoothed by torch's rule, (1 - e) NLL + e mean NLL.  Rows outside `mask` [N] are 0, whatever stands there; on a CPU,
    and in Triton's loss, they are not computed.
    """
    if mask is None:
        return _losses(x, weight, target, label_smoothing, None)
    if x.device.type == "cpu" and not choice.uses_triton(x, weight):
        rows = mask.nonzero()[:, 0]
        losses = _losses(x[rows], weight, target[rows], label_smoothing, None)
        return losses.new_zeros(len(mask)).index_put((rows,), losses)
    # not even something infinite there may reach a gradient
    return _losses(x.where(mask[:, None], 0.0), weight, target, label_smoothing, mask).where(mask, 0.0)


def _losses(x: Tensor, weight: Tensor, target: Tensor, label_smoothing: float, mask: Tensor | None) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        log_p, mean, *_ = LinearLogProbs.apply(x, weight, target[:, None], mask, False)
    nll = -log_p[:, 0]
    return torch.lerp(nll, -mean, label_smoothing) if label_smoothing else nll
