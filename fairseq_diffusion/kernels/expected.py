"""The mean of a table's rows under a softmax, without the N x V probabilities."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fairseq_diffusion.kernels.portable import chunk_rows


def expected_rows(x: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """softmax(x W^T) T for x [N, D], weight W [V, D], table T [V, d] -> [N, d] in fp32, under any autocast.

    Chunk by chunk; the backward pass makes each chunk again.
    """
    with torch.autocast(x.device.type, enabled=False):
        chunks = x.float().split(chunk_rows(len(weight), x.device, x.shape[1]))
        mean = partial(checkpoint, _mean, use_reentrant=False) if torch.is_grad_enabled() else _mean
        return torch.cat([mean(chunk, weight.float(), table.float()) for chunk in chunks])


def _mean(x: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    return (x @ weight.T).softmax(-1) @ table
