"""Which kernels run: Triton's or the portable ones, which are torch alone.  Both give the same results.

"auto" takes Triton's for tensors on a GPU that has them (see `why_no_triton`), "portable" never does, and "triton"
is an error where they cannot run.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fairseq_diffusion.errors import UserError

logger = logging.getLogger(__name__)

MODES = ("auto", "portable", "triton")
OLDEST_GPU = (8, 0)  # compute capability
OLDEST_TRITON = (3, 6)
MOST_ENTRIES = 2**31  # of a matrix: kernels count in 32 bits

_chosen = "auto"


def use(mode: str) -> None:
    """From now on, in this process."""
    global _chosen
    if mode not in MODES:
        raise UserError(f"unknown kernels {mode!r}; choose one of: {', '.join(MODES)}")
    if mode == "triton":
        require_triton(torch.device("cuda"))
    _chosen = str(mode)  # of a member of fairseq's enumeration, too


def uses_triton(*matrices: Tensor) -> bool:
    """Whether a kernel takes these matrices."""
    if _chosen == "portable" or exporting():
        return False
    device, fits = matrices[0].device, all(matrix.numel() < MOST_ENTRIES for matrix in matrices)
    if _chosen == "triton":
        require_triton(device)
        return fits
    return device.type == "cuda" and fits and why_no_triton(device) is None


def exporting() -> bool:
    """Whether what runs is being written down as a graph; older versions of torch cannot say, nor write it."""
    return getattr(torch.compiler, "is_exporting", lambda: False)()


def require_triton(device: torch.device) -> None:
    if reason := why_no_triton(device):
        raise UserError(
            f"--kernels is triton, but {reason}; pass --kernels auto, which runs portable kernels where it must"
        )


@lru_cache(None)
def why_no_triton(device: torch.device) -> str | None:
    """Why Triton's kernels cannot run on a device, None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    import triton

    version = triton.__version__
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TRITON:
        return f"Triton here is {version}, and they need {'.'.join(map(str, OLDEST_TRITON))} or newer"
    if interpreted():
        return None
    return _unfit(device)


def _unfit(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"the model is on the device {device.type!r}, and they need a GPU"
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return "torch sees no CUDA device here"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_GPU:
        found, wanted = (".".join(map(str, version)) for version in (capability, OLDEST_GPU))
        return f"{torch.cuda.get_device_name(device)} has compute capability {found}, and they need {wanted} or newer"
    return _unbuildable()


def _unbuildable() -> str | None:
    """Triton compiles its launcher with the C compiler, Python's headers, and a folder to keep it in."""
    try:
        _driver().utils  # noqa: B018  built at the first look
    except Exception as error:  # of many kinds: no compiler, no Python.h, no room
        reason = f"Triton cannot build its launcher here ({next(iter(str(error).splitlines()), type(error).__name__)})"
        logger.warning(f"{reason}; pass --kernels portable to be spared this message")
        return reason
    return None


def _driver() -> Any:
    import triton

    return triton.runtime.driver.active


def interpreted() -> bool:
    """Whether Triton runs kernels in Python, on a CPU: how tests see them without a GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"
