"""Cross-entropy of a linear layer without its logits: memory N x V becomes chunk x V."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.kernels.chunks import chunk_rows


class LinearCrossEntropy(torch.autograd.Function):
    """-sum_v q_v log softmax(x W^T)_v row by row; q is one-hot, smoothed by fairseq's rule (1 - e) NLL + e mean NLL.

    The backward pass makes the logits again, chunk by chunk, in fp32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """x [N, D], weight [V, D], target [N] -> [N]."""
        rows = chunk_rows(len(weight), x.device)
        losses, partitions = [], []
        for chunk, y in zip(x.split(rows), target.split(rows)):
            logits = chunk @ weight.T
            partition = logits.logsumexp(-1)
            picked = logits.gather(-1, y[:, None])[:, 0]
            if smoothing:
                picked = (1 - smoothing) * picked + smoothing * logits.mean(-1)
            losses.append(partition - picked)
            partitions.append(partition)
        ctx.save_for_backward(x, weight, target, torch.cat(partitions))
        ctx.smoothing = smoothing
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, target, partition = ctx.saved_tensors
        rows, e = chunk_rows(len(weight), x.device), ctx.smoothing
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        pieces = zip(*(whole.split(rows) for whole in (x, target, partition, grads[0], grad_x)))
        for chunk, y, lse, grad, grad_chunk in pieces:
            residual = (chunk @ weight.T - lse[:, None]).exp_() - e / len(weight)
            residual.scatter_add_(-1, y[:, None], residual.new_full((len(y), 1), e - 1))
            residual *= grad[:, None]
            torch.mm(residual, weight, out=grad_chunk)
            grad_weight.addmm_(residual.T, chunk)
        return grad_x, grad_weight, None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy [N] of softmax(x W^T) for x [N, D], weight [V, D], target [N]; fp32 under any autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return LinearCrossEntropy.apply(x.float(), weight.float(), target, label_smoothing)  # type: ignore[no-any-return]
