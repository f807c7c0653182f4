"""Spread of an embedding table: the mean squared distance to the nearest neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20


@torch.no_grad()
def nearest_neighbour(rows: Tensor, table: Tensor, first: int) -> Tensor:
    """Index in `table` [V, D] of the nearest other row, for `rows` = table[first : first + n] -> [n]."""
    distance = torch.addmm(table.square().sum(-1), rows, table.T, alpha=-2)  # up to ||row||^2, constant in a row
    distance.diagonal(first).fill_(torch.inf)
    return distance.argmin(-1)


@torch.no_grad()
def spread(table: Tensor) -> Tensor:
    """delta^2 = 1/(V D) sum_i min_{j != i} ||E_i - E_j||^2 (DINOISER eq. 12) of `table` [V, D] -> fp64 scalar.

    Row chunks bound the extra memory to about CHUNK_BYTES; distances are taken from differences, not from products,
    so nothing cancels.
    """
    table = table.detach().float()
    size = max(1, CHUNK_BYTES // (4 * len(table)))
    with torch.autocast(table.device.type, enabled=False):
        total = torch.zeros((), dtype=torch.float64, device=table.device)
        for first in range(0, len(table), size):
            rows = table[first : first + size]
            nearest = table[nearest_neighbour(rows, table, first)]
            total += (rows - nearest).square().sum(dtype=torch.float64)
    return total / table.numel()
