"""Seeing when the host waits for a value on the device."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

VALUES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "repeat_interleave", "_unique2", "unique_dim")
ENTRIES = ("index", "index_put", "index_put_")  # which make nonzero of a mask


class HostLooks(TorchDispatchMode):
    """Counts the times that the host waits for a value on the device; on a CPU it misses tolist()."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masked = name in ENTRIES and any(x is not None and x.dtype == torch.bool for x in args[1])
        self.count += masked or name in VALUES
        return function(*args, **(kwargs or {}))
