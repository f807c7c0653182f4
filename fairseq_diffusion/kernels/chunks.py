"""How many rows of logits to hold at once."""

from __future__ import annotations

import torch

# A CPU wants the logits to stay in its cache, a GPU wants few launches (256 MB in fp32).
ENTRIES = {"cpu": 2**20, "cuda": 2**26}


def chunk_rows(columns: int, device: torch.device, depth: int = 0) -> int:
    """Rows of `columns` logits that make up a chunk, at least one.

    On a CPU, products over many dimensions (`depth`) want more rows than the cache holds logits of: each product reads
    the whole table anew.
    """
    entries = ENTRIES.get(device.type, ENTRIES["cuda"])
    if device.type == "cpu":
        entries *= min(max(depth // 32, 1), 8)
    return max(1, entries // columns)
