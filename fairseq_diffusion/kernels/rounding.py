"""Rounding vectors to the rows of a table, without the N x V logits."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_diffusion.kernels.chunks import chunk_rows


@torch.no_grad()
def round_to_rows(x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """argmax_v softmax(x T^T)_v and its log-probability, for x [N, D], table [V, D] -> [N], [N]; fp32."""
    tokens, log_p = [], []
    with torch.autocast(x.device.type, enabled=False):
        for chunk in x.float().split(chunk_rows(len(table), x.device)):
            logits = chunk @ table.float().T
            best, token = logits.max(-1)
            tokens.append(token)
            log_p.append(best - logits.logsumexp(-1))
    return torch.cat(tokens), torch.cat(log_p)
