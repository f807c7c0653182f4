"""Transitions between the vertices of a graph of words."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fairseq_diffusion.network.transformer import Positions


class Links(nn.Module):
    """log E(i -> j), j > i, a mixture of H heads (Huang et al. 2022, DA-Transformer):

    f_i = [h_i ; position_i],   E(i -> j) = sum_h softmax_h(g f_i) softmax_(j > i)(q_i^h . k_j^h / sqrt(d / H))
    """

    def __init__(self, hidden: int, heads: int, max_positions: int):
        super().__init__()
        self.heads = heads
        self.positions = Positions(max_positions, hidden)
        self.query, self.key = nn.Linear(2 * hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.gate = nn.Linear(2 * hidden, heads)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """h [B, L, h], mask [B, L] true at vertices -> [B, L, L] in fp32, -inf where there is no link."""
        f = torch.cat([h, self.positions(mask).to(h.dtype)], -1)
        q, k = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2).float() for x in (self.query(f), self.key(f)))
        with torch.autocast(h.device.type, enabled=False):
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)  # [B, H, L, L]
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=h.device).triu(1)
        linked = (later & mask[:, None] & mask[:, :, None])[:, None]
        # rows and pairs without a link are finite until the end: a log-sum over nothing has no gradient
        scores = scores.masked_fill(~linked & linked.any(-1, keepdim=True), -torch.inf)
        gate = self.gate(f).float().log_softmax(-1).transpose(1, 2)
        heads = scores.log_softmax(-1).masked_fill(~linked, 0.0) + gate[..., None]
        return heads.logsumexp(1).masked_fill(~linked[:, 0], -torch.inf)
