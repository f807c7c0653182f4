"""Triton's language.  Where Triton is missing the kernels can be imported all the same, though not called."""

from __future__ import annotations

from functools import partial
from typing import Any

try:
    import triton
    import triton.language as tl

    # a kernel is compiled for a vocabulary and a width, but not for each kind of number of rows
    jit: Any = partial(triton.jit, do_not_specialize=("N", "splits"))
except ImportError:
    tl: Any = None  # type: ignore[no-redef]

    def jit(function: Any) -> Any:
        return function
