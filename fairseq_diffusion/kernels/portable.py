"""Products of rows with a table, chunk by chunk in one buffer: what the portable kernels have in common.

A fresh buffer for each chunk would cost a CPU more than the product in it.
"""

from __future__ import annotations

from typing import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_diffusion.kernels import choice

BLOCK = 64  # columns whose maximum is taken at once: torch does that in vector registers, and argmax not

# A CPU wants the logits to stay in its cache, a GPU wants few launches (256 MB in fp32).
ENTRIES = {"cpu": 2**20, "cuda": 2**26}


def chunk_rows(columns: int, device: torch.device, depth: int = 0) -> int:
    """Rows of `columns` logits to hold at once, at least one.

    On a CPU, products over many dimensions (`depth`) want more rows than the cache holds logits of: each product reads
    the whole table anew.
    """
    entries = ENTRIES.get(device.type, ENTRIES["cuda"])
    if device.type == "cpu":
        entries *= min(max(depth // 32, 1), 8)
    return max(1, entries // columns)


def products(x: Tensor, table: Tensor, bias: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """x T^T + b chunk by chunk: which rows, and their logits [n, V] with -inf columns up to a multiple of BLOCK.

    x [N, D], table [V, D], bias [V], all fp32.  The next chunk overwrites the logits.
    """
    columns = len(table)
    if choice.exporting():  # as one product, which programs that run graphs divide as they like
        logits = x @ table.T if bias is None else torch.addmm(bias, x, table.T)
        yield slice(None), F.pad(logits, (0, -columns % BLOCK), value=-torch.inf)
        return
    rows = max(1, min(len(x), chunk_rows(columns, x.device, x.shape[1])))
    buffer = x.new_empty(rows, -(-columns // BLOCK) * BLOCK)
    for i, chunk in enumerate(x.split(rows)):
        logits = buffer[: len(chunk)]
        logits[:, columns:] = -torch.inf
        if bias is None:
            torch.mm(chunk, table.T, out=logits[:, :columns])
        else:
            torch.addmm(bias, chunk, table.T, out=logits[:, :columns])
        yield slice(i * rows, i * rows + len(chunk)), logits


def best_of(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest [n] of each row of logits [n, k BLOCK] and the first column [n] that it is in."""
    blocks = logits.unflatten(-1, (-1, BLOCK))
    best, block = blocks.amax(-1).max(-1)
    inside = blocks[torch.arange(blocks.shape[0], device=block.device), block].argmax(-1)
    return best, block * BLOCK + inside


def log_sum(logits: Tensor, peak: Tensor) -> Tensor:
    """log sum exp [n] of logits [n, V], which are overwritten, given the largest of each row, peak [n]."""
    peak = peak.clamp(min=torch.finfo(peak.dtype).min)  # -inf - -inf is no number
    return peak + logits.sub_(peak[:, None]).exp_().sum(-1).log()
