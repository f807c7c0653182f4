"""How many rows of logits to hold at once."""

from __future__ import annotations

import torch

# A CPU wants the logits to stay in its cache, a GPU wants few launches (256 MB in fp32).
ENTRIES = {"cpu": 2**20, "cuda": 2**26}


def chunk_rows(columns: int, device: torch.device) -> int:
    """Rows of `columns` logits that make up a chunk, at least one."""
    return max(1, ENTRIES.get(device.type, ENTRIES["cuda"]) // columns)
