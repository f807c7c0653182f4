"""How a sum over alignments is computed on a device.

"scaled" adds probabilities in fp64, scaled to stay near 1; "log" adds them in log space: slower, never out of range.
"""

from __future__ import annotations

import torch
from torch import Tensor

FAST_FP64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}  # compute capabilities of data-centre GPUs


def form_for(device: torch.device) -> str:
    """Scaled where fp64 is fast: on a CPU and on data-centre GPUs."""
    if device.type == "cuda":
        return "scaled" if torch.cuda.get_device_capability(device) in FAST_FP64 else "log"
    return "scaled" if device.type == "cpu" else "log"


def widened(x: Tensor, form: str) -> Tensor:
    """x in the precision that `form` wants: fp64, or where that is slow or missing fp32 at least."""
    if form == "scaled" or x.device.type == "cpu":
        return x.double()
    return x.to(torch.promote_types(x.dtype, torch.float32))
