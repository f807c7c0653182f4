"""Cross-entropy of a linear layer without its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.kernels import choice
from fairseq_diffusion.kernels.log_probs import LinearLogProbs


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
