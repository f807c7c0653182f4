"""Cross-entropy of a linear layer without its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.kernels.log_probs import linear_log_probs


def linear_cross_entropy(x: Tensor, weight: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy [N] of softmax(x W^T) for x [N, D], weight [V, D], target [N]; fp32 under any autocast.

    Smoothed by fairseq's rule (1 - e) NLL + e mean NLL.
    """
    said = linear_log_probs(x, weight, target[:, None])
    nll = -said.log_p[:, 0]
    return torch.lerp(nll, -said.mean, label_smoothing) if label_smoothing else nll
